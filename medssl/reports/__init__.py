"""Reports: a page of HTML that is complete in itself, its charts and pictures, and the parts that each kind of run has."""
