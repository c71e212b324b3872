// /internal: for the tools of the daemon itself (lxd waitready, lxd shutdown)
import type { ApiApp } from './app.ts';
import { sync } from './envelope.ts';
import { Type } from './type.ts';

export interface InternalDeps {
  /** Stops all instances and ends the daemon; resolves when the instances are stopped. `force`: waits for no operation. */
  readonly shutdown: (options: { readonly force: boolean }) => Promise<void>;
}

const Shutdown = Type.Object({
  force: Type.Optional(Type.String({ description: 'Do not wait for operations that are running' })),
});

export function registerInternalRoutes(app: ApiApp, { shutdown }: InternalDeps): void {
  app.get(
    '/internal/ready',
    {
      schema: { summary: 'Whether start-up is complete: the listener opens when it is' },
      config: { always: true, admin: true },
    },
    async () => sync(),
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
