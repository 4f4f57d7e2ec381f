"""Rows ranked side by side, and which model they tell a user to take."""
