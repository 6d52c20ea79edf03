import type { components } from "./api";

export const job: components["schemas"]["Submit"] = {};
