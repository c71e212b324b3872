// The OpenAPI document of all routes, registered on an engine that is never asked anything.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createApi } from '#src/api/create-api.ts';
import { instanceRoutes } from '#src/api/instances.ts';
import { describeRoutes, openApiDocument } from '#src/api/openapi.ts';
import { registerRoutes } from '#src/api/register-routes.ts';
import { Upgrades } from '#src/api/upgrades.ts';
import type { Engine } from '#src/engine/engine.ts';
import type { InstancesOfEngine } from '#src/engine/instances/create-instances.ts';
import { silentLog } from '#src/lib/log.ts';

/** Whatever is asked of it, it is that again: routes take their parts at registration, and use them when they are called. */
const anything: unknown = new Proxy(() => undefined, { get: () => anything, apply: () => anything });

export async function openApiText(): Promise<string> {
  const callerOf = () => {
    throw new Error('nobody calls');
  };
  const app = createApi({
    log: silentLog,
    callerOf,
    projectExists: () => true,
    config: { text: () => '', flag: () => false },
  });
  const routes = describeRoutes(app);
  registerRoutes(app, {
    engine: anything as Engine<InstancesOfEngine>,
    upgrades: new Upgrades({ callerOf, log: silentLog }),
    instanceRoutes,
    shutdown: async () => undefined,
  });
  const manifest = JSON.parse(await readFile(join(import.meta.dirname, '../package.json'), 'utf8')) as {
    version: string;
  };
  return `${JSON.stringify(openApiDocument(routes, manifest.version), undefined, 2)}\n`;
}
