"""One file a page: from a value of ``analysis`` to a document."""
