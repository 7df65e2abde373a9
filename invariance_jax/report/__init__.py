"""Answers from results: tables for the terminal, figures for papers, one page that needs no net."""
