// Draws every chart whose description, as JSON, stands in the page.
"use strict";
for (const script of document.querySelectorAll("script.item")) {
  const item = JSON.parse(script.textContent);
  Bokeh.embed.embed_item(item, item.target_id);
}
