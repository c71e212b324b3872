// /1.0/storage-pools
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import type { PoolRecord } from '#src/engine/db/records.ts';
import type { Engine } from '#src/engine/engine.ts';
import { limited } from '#src/lib/wait.ts';
import type { ApiApp } from './app.ts';
import { checkIfMatch, created, sync, syncWithEtag } from './envelope.ts';
import { parseFilter } from './filter.ts';
import { ListQuery, partial, pathParams, StringMap } from './schema.ts';
import { Type } from './type.ts';

const Content = { description: Type.String(), config: StringMap };
const Put = partial(Content);
const Post = partial({ name: Type.String(), driver: Type.String(), ...Content });
const Pool = Type.Object({
  name: Type.String(),
  driver: Type.String(),
  ...Content,
  used_by: Type.Array(Type.String()),
  status: Type.String(),
  locations: Type.Array(Type.String()),
  /** Not LXD's: whether roots are held to their size, which for directories depends on the file system. */
  quotas: Type.Boolean(),
});
const Space = Type.Object({ used: Type.Integer(), total: Type.Integer() });
const Resources = Type.Object({ space: Space, inodes: Space });
const Params = pathParams('pool');

/** Asking a pool; making and deleting one, which formats devices and deletes trees. */
const ASK_MS = 30_000;
const CHANGE_MS = 15 * 60_000;

const mutableOf = ({ name, driver, config }: PoolRecord) => [name, driver, config];
const url = ({ name }: PoolRecord) => `/1.0/storage-pools/${encodeURIComponent(name)}`;

type Deps = Pick<Engine, 'pools'>;

export function registerStoragePoolRoutes(app: ApiApp, deps: Deps): void {
  registerPools(app, deps);
  registerPool(app, deps);
}

async function view(deps: Deps, pool: PoolRecord): Promise<object> {
  const { name, driver, description, config } = pool;
  await deps.pools.look(name);
  const isOpen = deps.pools.isOpen(name);
  const status = isOpen ? 'Created' : 'Unavailable';
  const quotas = isOpen && deps.pools.driver(name).info.quotas;
  const usedBy = await deps.pools.usedBy(name, limited(ASK_MS));
  return { config, description, name, driver, used_by: usedBy, status, locations: ['none'], quotas };
}

function registerPools(app: ApiApp, deps: Deps): void {
  const { pools } = deps;

  app.get(
    '/1.0/storage-pools',
    { schema: { summary: 'List storage pools', querystring: ListQuery }, config: { answer: Type.Array(Pool) } },
    async ({ query: { recursion = 0, filter } }) => {
      const list = pools.list();
      if (recursion === 0) return sync(list.map(url));
      const views = await Promise.all(list.map((pool) => view(deps, pool)));
      return sync(views.filter(parseFilter(filter)));
    },
  );

  app.post(
    '/1.0/storage-pools',
    { schema: { summary: 'Create a storage pool', body: Post }, config: { admin: true, creates: true } },
    async ({ body: { name = '', driver = '', description = '', config = {} } }, reply) => {
      await pools.create({ name, driver, description, config }, limited(CHANGE_MS));
      return created(reply, `/1.0/storage-pools/${encodeURIComponent(name)}`);
    },
  );
}

function registerPool(app: ApiApp, deps: Deps): void {
  const { pools } = deps;

  app.get(
    '/1.0/storage-pools/:pool',
    { schema: { summary: 'Get a storage pool', params: Params }, config: { answer: Pool } },
    async ({ params }, reply) => {
      const pool = pools.get(params.pool);
      return syncWithEtag(reply, await view(deps, pool), mutableOf(pool));
    },
  );

  app.put(
    '/1.0/storage-pools/:pool',
    {
      schema: { summary: 'Replace the configuration of a storage pool', params: Params, body: Put },
      config: { admin: true },
    },
    async (request) => {
      const pool = pools.get(request.params.pool);
      checkIfMatch(request, mutableOf(pool));
      const { description = '', config = {} } = request.body;
      await pools.update(pool, { description, config }, limited(CHANGE_MS));
      return sync();
    },
  );

  app.patch(
    '/1.0/storage-pools/:pool',
    {
      schema: { summary: 'Change the configuration of a storage pool', params: Params, body: Put },
      config: { admin: true },
    },
    async (request) => {
      const pool = pools.get(request.params.pool);
      checkIfMatch(request, mutableOf(pool));
      const { description = pool.description, config } = request.body;
      await pools.update(pool, { description, config: { ...pool.config, ...config } }, limited(CHANGE_MS));
      return sync();
    },
  );

  app.delete(
    '/1.0/storage-pools/:pool',
    { schema: { summary: 'Delete a storage pool', params: Params }, config: { admin: true } },
    async ({ params }) => {
      await pools.delete(params.pool, limited(CHANGE_MS));
      return sync();
    },
  );

  app.get(
    '/1.0/storage-pools/:pool/resources',
    { schema: { summary: 'Get the usage of a storage pool', params: Params }, config: { answer: Resources } },
    async ({ params }) => {
      const usage = await pools.driver(params.pool).poolUsage(limited(ASK_MS));
      return sync({
        space: { used: usage.usedBytes, total: usage.totalBytes },
        inodes: { used: usage.inodesUsed, total: usage.inodesTotal },
      });
    },
  );
}
