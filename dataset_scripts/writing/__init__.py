"""Published datasets: Parquet files with embedded images, a card, and the push to the Hub."""
