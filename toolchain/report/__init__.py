"""What an export leaves besides C: manifest.json, parity.json, report.html and the archived graph."""
