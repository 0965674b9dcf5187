import createClient from "openapi-fetch";
import type { paths } from "./api.js";

const base = process.argv[2]!;
const api = createClient<paths>({ baseUrl: base });

async function main(): Promise<void> {
  const made = await api.POST("/v1/jobs", { body: { type: "send" } });
  if (!made.data) throw new Error(JSON.stringify(made.error));
  const id: string = made.data.id;
  const found = await api.GET("/v1/jobs/{id}", { params: { path: { id }, query: { wait: 0 } } });
  if (!found.data || found.data.state !== "ready") throw new Error("not ready");
  const many = await api.POST("/v1/jobs/bulk", { body: [{ type: "send", queue: "mail" }, { type: "send", delay: "5m" }] });
  if (typeof many.data !== "object") throw new Error("lines were not asked for");
  const statuses = many.data.items.map((item) => item.status);
  const leased = await api.POST("/v1/queues/{queue}/lease", { params: { path: { queue: "mail" } }, body: { worker: "w" } });
  const [job] = leased.data!.jobs;
  const told = await api.POST("/v1/queues/{queue}/settle", { params: { path: { queue: "mail" } }, body: { worker: "w", ack: [{ id: job!.id, token: job!.token }] } });
  const put = await api.PUT("/v1/schedules/{schedule}", { params: { path: { schedule: "nightly" } }, body: { type: "send", cron: "0 9 * * *" } });
  const flow = await api.POST("/v1/flows", { body: { jobs: [{ name: "a", type: "send" }] } });
  const list = await api.GET("/v1/jobs", { params: { query: { state: "ready", limit: 5 } } });
  const bad = await api.POST("/v1/jobs", { body: { type: "no type" } });
  console.log(JSON.stringify({ statuses, ok: told.data?.items[0]?.ok, every: put.response.status, flow: flow.data?.state, listed: list.data!.items.length, code: bad.error?.code }));
}

void main();
