// Tokens of images: who may fetch or give an image without being trusted.
import { afterEach, beforeEach, expect, it } from 'vitest';
import { findImageToken, startImageToken } from '#src/api/image-tokens.ts';
import { createEvents } from '#src/engine/events/events.ts';
import { createOperations, type OperationRegistry } from '#src/engine/operations/operations.ts';
import { silentLog } from '#src/lib/log.ts';

const fingerprint = 'ab'.repeat(32);
let operations: OperationRegistry;
let events: ReturnType<typeof createEvents>;

beforeEach(() => {
  events = createEvents();
  operations = createOperations({ events, log: silentLog, keepMs: 50 });
});
afterEach(() => operations.drain(AbortSignal.timeout(1000)));

function tokenFor(project: string): string {
  const id = startImageToken({ operations, context: { events } }, { project, fingerprint });
  return String(operations.get(id).metadata?.['secret']);
}

it.each(['default', 'foo'])('opens the image of its project (%s), and nothing else', (project) => {
  const secret = tokenFor(project);

  expect(findImageToken(operations, { project, fingerprint }, secret)?.status).toBe('Running');
  expect(findImageToken(operations, { project: 'other', fingerprint }, secret)).toBeUndefined();
  expect(findImageToken(operations, { project, fingerprint: 'cd'.repeat(32) }, secret)).toBeUndefined();
  expect(findImageToken(operations, { project, fingerprint }, 'no')).toBeUndefined();
  expect(findImageToken(operations, { project, fingerprint }, '')).toBeUndefined();
});
