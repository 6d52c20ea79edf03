import type { components, paths } from "./api";

type Jobs = paths["/api/v1/jobs"];
type Body = Jobs["post"]["requestBody"]["content"]["application/json"];
type Answer = Jobs["post"]["responses"][202]["content"]["application/json"];

export const one: Body = { kind: "step" };
export const all: components["schemas"]["Submit"] = { kind: "step", payload: { a: [1, null] }, priority: "low", items: [1] };
export const bulk: components["schemas"]["Bulk"] = { jobs: [{ kind: "step", idempotency_key: "one" }] };
export const page: NonNullable<Jobs["get"]["parameters"]["query"]> = { limit: 10 };

export function describe(job: Answer): string {
    return `${job.id} ${job.state satisfies components["schemas"]["State"]} ${job.error?.message ?? ""}`;
}
