"""A page to play with: infinite width is solved again as one drags, and finite networks train beside it.

    kernelfield explore                      # opens the page in a browser
    kernelfield explore --static page.html   # a page without a server, on which everything is solved before

`Question` (`question.py`) says what can be changed, `solve_frame` (`frame.py`) what the page shows of one setting, and
`Page` (`page.py`) draws it.
"""
