"""The listening side: accepts clients, decides what they may touch, serves their sessions."""
