"""`medssl serve`: trained networks on a web page and behind a JSON API, in one process and without any other machine.

The order in which a request meets the files: `connections` (HTTP itself), `guard` (who may ask), `api` (what can be asked),
`upload` (the body, as it streams in), `opening` (what kind of file it is, and whether its header is within `limits`),
`queue` (who is next), `work` (the prediction), `results` (what is kept, and for how long). `page` is HTML, CSS and
JavaScript, which use the API and nothing else; `vendor` holds the one file of it that others wrote.
"""
