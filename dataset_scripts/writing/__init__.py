"""Published datasets: Parquet files with embedded images, a dataset card, and the push to the Hub."""
