// /1.0/events: a websocket of JSON texts; /1.0/operations/ID/websocket
import type { WebSocket } from 'ws';
import type { Engine } from '#src/engine/engine.ts';
import { EVENT_TYPES, type EventFilter, type EventType } from '#src/engine/events/events.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ApiApp } from './app.ts';
import { ApiError, translating } from './envelope.ts';
import type { UpgradeRequest, Upgrades } from './upgrades.ts';
import { Type } from './type.ts';

/** A listener that lets so much pile up is disconnected: it would cost memory without end. */
const MAX_BACKLOG_BYTES = 1 << 20;
const TRY_AGAIN_LATER = 1013;

const Query = Type.Object({
  type: Type.Optional(Type.String({ description: 'logging, operation, lifecycle; comma-separated' })),
  project: Type.Optional(Type.String()),
  'all-projects': Type.Optional(Type.String()),
});

type Deps = Pick<Engine, 'events' | 'operations'>;

export function registerEventRoutes(app: ApiApp, upgrades: Upgrades, { events, operations }: Deps): void {
  app.get(
    '/1.0/events',
    { schema: { summary: 'Listen to events (websocket)', querystring: Query }, config: { always: true } },
    async ({ query: { type } }) => {
      await translating({ invalid: { status: 500 } }, () => typesOf(type ?? null));
      throw new ApiError(400, 'Bad Request: a websocket upgrade is needed');
    },
  );

  upgrades.add('/1.0/events', (request) => {
    if (!request.caller.trusted) throw new AppError('forbidden', 'not authorized');
    const filter = filterOf(request);
    return (socket) => listen(socket, events, filter);
  });

  upgrades.add('/1.0/operations/:id/websocket', ({ params, query }) => {
    return operations.connect(params['id'] ?? '', query.get('secret') ?? '');
  });
}

function typesOf(text: string | null): ReadonlySet<EventType> {
  const names = text === null || text === '' ? EVENT_TYPES : text.split(',');
  const bad = names.find((name) => !EVENT_TYPES.includes(name as EventType));
  if (bad !== undefined) throw new AppError('invalid', `"${bad}" isn't a supported event type`);
  return new Set(names as readonly EventType[]);
}

function filterOf({ query, caller }: UpgradeRequest): EventFilter {
  const types = typesOf(query.get('type'));
  const all = query.get('all-projects') === 'true';
  const project = query.get('project') ?? 'default';
  if (all && query.get('project') !== null) {
    throw new AppError('invalid', 'Cannot specify a project when requesting all projects');
  }
  if (caller.projects && (all || !caller.projects.has(project))) throw new AppError('forbidden', 'not authorized');
  return all ? { types } : { types, project };
}

function listen(socket: WebSocket, events: Deps['events'], filter: EventFilter): void {
  const subscription = events.subscribe(filter, (text) => {
    if (socket.bufferedAmount > MAX_BACKLOG_BYTES) {
      subscription[Symbol.dispose]();
      socket.close(TRY_AGAIN_LATER, 'too slow');
      socket.terminate();
      return;
    }
    socket.send(text);
  });
  socket.once('close', () => subscription[Symbol.dispose]());
  // Listeners say nothing; what they say all the same is read and dropped.
  socket.resume();
}
