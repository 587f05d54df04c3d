"""Results read from the records: leaderboard, winner, status, submission, card, report."""
