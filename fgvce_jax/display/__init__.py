"""An explanation for people: three lines of text, a figure, a fragment of HTML."""
