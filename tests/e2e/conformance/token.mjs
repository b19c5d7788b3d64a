// Loaded into the conformance suite, which cannot be told a token: adds ours to every request that it makes.
import { subscribe } from "node:diagnostics_channel";

const authorization = `Bearer ${process.env.CONFORMANCE_TOKEN}`;

subscribe("undici:request:create", ({ request }) => request.addHeader("authorization", authorization));
subscribe("http.client.request.created", ({ request }) => request.setHeader("authorization", authorization));
