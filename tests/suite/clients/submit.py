"""Submits jobs with the generated client and reads them back. Argument: the URL of the API."""

import sys

import httpx
from leasehold_client import Client
from leasehold_client.api.batches import add_items, list_items
from leasehold_client.api.jobs import get_job, submit_job, submit_jobs
from leasehold_client.models import (
    Bulk,
    BulkAccepted,
    BulkRefused,
    BulkSubmit,
    Code,
    Job,
    Page,
    Part,
    Priority,
    Problem,
    State,
    Submit,
    Upload,
)
from leasehold_client.types import File

client = Client(base_url=sys.argv[1], timeout=httpx.Timeout(90), raise_on_unexpected_status=True)


def expect(model, answer):
    assert isinstance(answer, model), answer
    return answer


def completed(id):
    job = expect(Job, get_job.sync(id, client=client, prefer="wait=30"))
    assert job.state == State.COMPLETED, job
    return job


# One job, submitted twice with one key.
submit = Submit(kind="step", payload={"a": [1, None]}, priority=Priority.HIGH)
job, same = (expect(Job, submit_job.sync(client=client, body=submit, idempotency_key="one")) for _ in range(2))
assert job.id == same.id
done = completed(job.id)
assert done.payload == {"a": [1, None]} and done.result is not None, done

# A job with a file.
upload = Upload(job=Submit(kind="step"))
upload["ten.txt"] = File(payload=b"0123456789", file_name="ten.txt", mime_type="text/plain")
completed(expect(Job, submit_job.sync(client=client, body=upload)).id)

# A batch whose items come later.
batch = expect(Job, submit_job.sync(client=client, body=Submit(kind="step", items_open=True)))
expect(Job, add_items.sync(batch.id, client=client, body=Part(first=0, items=[1, "two"], last=True)))
items = completed(batch.id).items
assert (items.total, items.succeeded, items.open_) == (2, 2, False), items
assert len(expect(Page, list_items.sync(batch.id, client=client)).jobs) == 2

# Several jobs in one request, one of which is refused.
bulk = Bulk(jobs=[BulkSubmit(kind="step", idempotency_key="two"), BulkSubmit(kind="not a name")])
accepted, refused = submit_jobs.sync(client=client, body=bulk).results
completed(expect(BulkAccepted, accepted).job.id)
assert expect(BulkRefused, refused).error.code == Code.INVALID_REQUEST

problem = expect(Problem, get_job.sync("nowhere", client=client))
assert problem.code == Code.NO_SUCH_JOB, problem
