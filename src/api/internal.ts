// /internal: for the tools of the daemon itself (lxd waitready, lxd shutdown)
import { AppError } from '#src/lib/errors.ts';
import type { ApiApp } from './app.ts';
import { sync } from './envelope.ts';
import { Type } from './type.ts';

export interface InternalDeps {
  /** Stops all instances and ends the daemon; resolves when the instances are stopped. `force`: waits for no operation. */
  readonly shutdown: (options: { readonly force: boolean }) => Promise<void>;
  /** Whether the instances that start with the daemon have been started. */
  readonly haveStarted: () => boolean;
}

const Shutdown = Type.Object({
  force: Type.Optional(Type.String({ description: 'Do not wait for operations that are running' })),
});

export function registerInternalRoutes(app: ApiApp, { shutdown, haveStarted }: InternalDeps): void {
  app.get(
    '/internal/ready',
    {
      schema: { summary: 'Whether start-up is complete, with all instances that start by themselves; 503 until it is' },
      config: { always: true, admin: true },
    },
    async () => {
      if (!haveStarted()) throw new AppError('unavailable', 'LXD daemon not ready yet');
      return sync();
    },
  );
  app.get(
    '/internal/gc',
    { schema: { summary: 'Collect the garbage of the daemon' }, config: { admin: true } },
    async () => {
      globalThis.gc?.();
      return sync();
    },
  );
  app.put(
    '/internal/shutdown',
    {
      schema: { summary: 'Stop all instances, then the daemon', querystring: Shutdown },
      config: { admin: true, always: true },
    },
    async ({ query }) => {
      await shutdown({ force: query.force === '1' || query.force === 'true' });
      return sync();
    },
  );
}
