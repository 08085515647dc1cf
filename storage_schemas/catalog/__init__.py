"""The posterior catalog: its arrays, its releases, queries and damage."""
