# word_count.py
import json, sys
payload = json.loads(sys.stdin.readline())
print(json.dumps({"result": {"words": len(payload["text"].split())}}))
