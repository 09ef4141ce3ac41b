"""The report alive: a page in the browser that answers what is typed."""
