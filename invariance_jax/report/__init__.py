"""Answers from results: tables for the terminal, figures for papers, one page that needs no net."""

import importlib.util
import os

# A notebook tells every program that it starts how to show figures, by a module that another
# installation may not have. matplotlib would refuse to be imported.
_module = os.environ.get("MPLBACKEND", "").partition("module://")[2].partition(".")[0]
if _module and importlib.util.find_spec(_module) is None:
    del os.environ["MPLBACKEND"]
