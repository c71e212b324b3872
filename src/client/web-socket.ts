// Websockets of an engine, over its unix socket or over TLS like its HTTP.
import { type ClientOptions, WebSocket } from 'ws';
import { type Endpoint, tlsOptions } from './transport.ts';

const OPEN_LIMIT_MS = 10_000;

/** Not open yet: listeners attached at once miss nothing. */
export function openWebSocket(endpoint: Endpoint, path: string): WebSocket {
  const options = { handshakeTimeout: OPEN_LIMIT_MS, perMessageDeflate: false };
  if (endpoint.kind === 'unix') return new WebSocket(`ws+unix://${endpoint.socketPath}:${path}`, options);
  // ws declares checkServerIdentity unlike node:tls, to which it hands it.
  const tls = { ...options, ...tlsOptions(endpoint) } as unknown as ClientOptions;
  return new WebSocket(new URL(path, endpoint.url.replace(/^http/, 'ws')), tls);
}
