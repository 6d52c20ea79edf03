"""Writes the old store beside this file: a SQLite table of jobs, and the upload of the one that had not ended."""
import json, math, pathlib, sqlite3, struct, wave

here = pathlib.Path(__file__).parent
for folder in ("output", "uploads"):
    (here / folder).mkdir(exist_ok=True)
path = here / "output" / "jobs.db"
path.unlink(missing_ok=True)
db = sqlite3.connect(path)
db.execute(
    "CREATE TABLE jobs (job_id TEXT PRIMARY KEY, status TEXT, progress REAL, filename TEXT, result TEXT, error TEXT,"
    " created_at TEXT, updated_at TEXT, genre TEXT)"
)
result = {"duration_seconds": 2.5, "sample_rate_hz": 44100, "channels": 2, "peak_dbfs": -1.2}
db.executemany(
    "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [
        ("abc123", "completed", 1.0, "test.wav", json.dumps(result), None, "2024-01-01T12:00:00", "2024-01-01T12:00:05", "jazz"),
        ("def456", "failed", 0.2, "noise.txt", None, "Not an audio file", "2024-01-02T12:00:00", "2024-01-02T12:00:01", None),
        ("ghi789", "processing", 0.5, "tone.wav", None, None, "2024-01-03T12:00:00", "2024-01-03T12:00:01", None),
        ("jkl012", "half done", 0.5, "lost.wav", None, None, "2024-01-04T12:00:00", "2024-01-04T12:00:01", None),
    ],
)
db.commit()
db.close()
with wave.open(str(here / "uploads" / "ghi789_tone.wav"), "wb") as tone:
    tone.setnchannels(1)
    tone.setsampwidth(2)
    tone.setframerate(8000)
    tone.writeframes(b"".join(struct.pack("<h", int(8000 * math.sin(2 * math.pi * 440 * n / 8000))) for n in range(4000)))
