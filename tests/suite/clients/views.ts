import type { components } from "./views-api";

export const analysis: components["schemas"]["AnalysisSubmit"] = { url: "https://example.org/a.pdf" };
export const pages: components["schemas"]["ScreenshotsSubmit"] = { items: [{ id: "a", url: "https://example.org" }] };
