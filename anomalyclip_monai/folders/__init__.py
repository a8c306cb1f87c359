"""What we write into folders of a user: marked, locked and whole, so that nothing else there is ever touched."""
