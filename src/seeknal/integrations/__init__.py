"""What other people's orchestrators leave behind, as records of a store."""
