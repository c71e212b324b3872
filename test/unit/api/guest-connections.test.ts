// Connections of instances to devlxd.
import { PassThrough } from 'node:stream';
import { expect, it } from 'vitest';
import { GuestConnections, MAX_CONNECTIONS_PER_GUEST } from '#src/api/devlxd/guest-connections.ts';

it('gives each instance so many connections, and those that it closes again', async () => {
  const connections = new GuestConnections();
  const sockets = Array.from({ length: MAX_CONNECTIONS_PER_GUEST }, () => new PassThrough());

  expect(sockets.every((socket) => connections.admit(1, socket))).toBe(true);

  expect(connections.admit(1, new PassThrough())).toBe(false);
  expect(connections.admit(2, new PassThrough())).toBe(true);
  await new Promise((resolve) => sockets[0]?.once('close', resolve).destroy());
  expect(connections.admit(1, new PassThrough())).toBe(true);
  expect(connections.admit(1, new PassThrough())).toBe(false);
});
