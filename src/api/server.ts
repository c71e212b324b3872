// / and /1.0: what this server is and how it is configured; /1.0/resources
import { DEFAULT_PROJECT } from '#src/engine/db/projects.ts';
import type { Engine } from '#src/engine/engine.ts';
import type { FastifyRequest } from 'fastify';
import type { ApiApp, Caller } from './app.ts';
import { checkIfMatch, sync, syncWithEtag } from './envelope.ts';
import { ProjectQuery } from './schema.ts';
import { Type } from './type.ts';

const Value = Type.Union([Type.String(), Type.Boolean(), Type.Number()]);
const Put = Type.Object({ config: Type.Optional(Type.Record(Type.String(), Value)) });
const Server = Type.Object({
  api_extensions: Type.Array(Type.String()),
  api_status: Type.String(),
  api_version: Type.String(),
  auth: Type.String(),
  public: Type.Boolean(),
  auth_methods: Type.Array(Type.String()),
  config: Type.Optional(Type.Record(Type.String(), Value)),
  environment: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
});

type Deps = Pick<Engine, 'config' | 'environment' | 'resources'> & { readonly extensions: readonly string[] };

export function registerServerRoutes(app: ApiApp, deps: Deps): void {
  const { config, resources } = deps;
  app.get(
    '/',
    { schema: { summary: 'List the versions of the API' }, config: { untrusted: true, always: true } },
    async () => sync(['/1.0']),
  );

  app.get(
    '/1.0',
    {
      schema: { summary: 'Get the server', querystring: ProjectQuery },
      config: { answer: Server, untrusted: true, always: true },
    },
    async (request, reply) => {
      const { caller, query } = request;
      if (!caller.trusted) return sync(viewOf(deps, caller, DEFAULT_PROJECT));
      // As LXD does: the name that was asked with, though there be no such project, and none is refused.
      const view = viewOf(deps, caller, query.project ?? DEFAULT_PROJECT);
      return syncWithEtag(reply, takesTextsOnly(request) ? { ...view, config: asTexts(config.view()) } : view, [
        config.view(),
      ]);
    },
  );

  for (const method of ['PUT', 'PATCH'] as const) {
    app.route({
      method,
      url: '/1.0',
      schema: { summary: method === 'PUT' ? 'Replace the configuration' : 'Change the configuration', body: Put },
      config: { always: true, admin: true },
      handler: async (request) => {
        checkIfMatch(request, [config.view()]);
        await config.update(saidBy(request, config.view()), { replace: method === 'PUT' });
        return sync();
      },
    });
  }

  app.get('/1.0/resources', { schema: { summary: 'Get the hardware of the host' } }, async () =>
    sync(await resources()),
  );
}

function viewOf({ config, environment, extensions }: Deps, { trusted }: Caller, project: string): object {
  return {
    ...(trusted && { config: config.view() }),
    api_extensions: [...extensions],
    api_status: 'stable',
    api_version: '1.0',
    auth: trusted ? 'trusted' : 'untrusted',
    public: false,
    auth_methods: ['tls'],
    ...(trusted && { environment: { ...environment(), project } }),
  };
}

/** Incus' client, to which a secret that is set is no `true`: it would understand nothing of the answer. */
function takesTextsOnly({ headers }: FastifyRequest): boolean {
  return headers['user-agent']?.startsWith('Incus ') === true;
}

type Values = Readonly<Record<string, string | number | boolean>>;

function asTexts(view: Values): Values {
  return Object.fromEntries(Object.entries(view).map(([key, value]) => [key, String(value)]));
}

/** What a client of Incus read, it PUTs back: also the secrets that are set. */
function saidBy(request: FastifyRequest, view: Values): Values {
  const { config: said = {} } = request.body as { readonly config?: Values };
  if (!takesTextsOnly(request)) return said;
  return Object.fromEntries(
    Object.entries(said).map(([key, value]) => [key, view[key] === true && value === 'true' ? true : value]),
  );
}
