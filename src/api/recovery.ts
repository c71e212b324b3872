// /internal/recover: what pools hold and the database does not know (lxd recover).
import { Type as T } from 'typebox';
import type { Engine } from '#src/engine/engine.ts';
import type { NewPool } from '#src/engine/storage/storage-pools.ts';
import { limited } from '#src/lib/wait.ts';
import type { ApiApp } from './app.ts';
import { sync } from './envelope.ts';
import { partial, StringMap } from './schema.ts';
import { Type } from './type.ts';

const Pool = T.Intersect([
  T.Object({ name: Type.String({ minLength: 1 }) }),
  partial({ driver: Type.String(), description: Type.String(), config: StringMap }),
]);
const Body = Type.Object({ pools: T.Union([Type.Array(Pool), T.Null()]) });
const LIMIT_MS = 30 * 60_000;

interface Wanted {
  readonly name: string;
  readonly driver?: string | undefined;
  readonly description?: string | undefined;
  readonly config?: Readonly<Record<string, string>> | undefined;
}

function poolsOf(pools: readonly Wanted[] | null): readonly NewPool[] {
  return (pools ?? []).map(({ name, driver = '', description = '', config = {} }) => ({
    name,
    driver,
    description,
    config,
  }));
}

export function registerRecoveryRoutes(app: ApiApp, { recovery }: Pick<Engine, 'recovery'>): void {
  app.post(
    '/internal/recover/validate',
    {
      schema: { summary: 'Look for instances and volumes in pools that the database does not know', body: Body },
      config: { admin: true },
    },
    async ({ body }) => {
      const { volumes, missing } = await recovery.validate(poolsOf(body.pools), limited(LIMIT_MS));
      return sync({ UnknownVolumes: volumes, DependencyErrors: missing });
    },
  );
  app.post(
    '/internal/recover/import',
    { schema: { summary: 'Take over what was found in pools', body: Body }, config: { admin: true } },
    async ({ body }) => {
      await recovery.import(poolsOf(body.pools), limited(LIMIT_MS));
      return sync();
    },
  );
}
