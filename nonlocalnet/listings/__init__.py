"""Lists of videos as data sets are published -> labelled samples. One function for each format.

`data` is what the user names; `rows` what a list says, line by line; `formats` the functions by
name, and how one kind of list is told from another; `places` which videos are there; `classes`
what they show; `read` puts it together. Importing the package imports none of them.
"""
