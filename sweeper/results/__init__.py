"""Reads finished records: leaderboard, winner, status, submission, card, report."""
