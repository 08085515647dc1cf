"""The jobs: each joins science, stores and engines in a page or two, and fills what is missing of one store."""
