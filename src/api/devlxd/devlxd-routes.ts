// The API inside of instances, /dev/lxd/sock (lxd-engine-contract section 2.11): plain bodies, errors as text.
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { ImageRecord } from '#src/engine/db/records.ts';
import type { ImageFileSet } from '#src/engine/images/image-files.ts';
import { type DevlxdGuest, isVisible, metaData, visibleDevices, visibleKeys } from '#src/engine/instances/devlxd.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import { exportImage } from '../image-export.ts';

export interface DevlxdParts {
  /** The instance at the other end of a connection. */
  readonly guestOf: (request: FastifyRequest['raw']) => DevlxdGuest | undefined;
  /** AppError 'not_found' for what is not there, or not for instances. */
  readonly image: (guest: DevlxdGuest, fingerprint: string) => Promise<{ image: ImageRecord; files: ImageFileSet }>;
  /** Streams events as lines until the client goes. */
  readonly streamEvents: (guest: DevlxdGuest, request: FastifyRequest, reply: FastifyReply) => void;
}

const STATUS: Readonly<Record<string, number>> = { invalid: 400, forbidden: 403, not_found: 404 };
const NOT_FOUND = 'not found';

export function createDevlxd(parts: DevlxdParts): FastifyInstance {
  const app = fastify({ logger: false, bodyLimit: 64 * 1024 });
  app.setErrorHandler((error, _request, reply) => {
    return reply
      .code(STATUS[kindOf(error)] ?? 500)
      .type('text/plain')
      .send(`${messageOf(error)}\n`);
  });
  app.setNotFoundHandler((_request, reply) => reply.code(404).type('text/plain').send(`${NOT_FOUND}\n`));
  registerOwn(app, parts);
  registerOthers(app, parts);
  return app;
}

/** AppError when it is no instance, or one that may not ask. */
export function requireGuest(parts: Pick<DevlxdParts, 'guestOf'>, request: FastifyRequest['raw']): DevlxdGuest {
  const guest = parts.guestOf(request);
  if (!guest) throw new AppError('internal', 'pid not in container?');
  if (!guest.allowed) throw new AppError('forbidden', 'not authorized');
  return guest;
}

function registerOwn(app: FastifyInstance, parts: DevlxdParts): void {
  app.get('/', async ({ raw }) => {
    requireGuest(parts, raw);
    return ['/1.0'];
  });
  app.get('/1.0', async ({ raw }) => {
    requireGuest(parts, raw);
    return { api_version: '1.0', location: 'none', instance_type: 'container' };
  });
  app.get('/1.0/config', async ({ raw }) => {
    return visibleKeys(requireGuest(parts, raw).expanded.config).map((key) => `/1.0/config/${key}`);
  });
  app.get<{ Params: { key: string } }>('/1.0/config/:key', async ({ raw, params: { key } }, reply) => {
    const { config } = requireGuest(parts, raw).expanded;
    if (!isVisible(key)) throw new AppError('forbidden', 'not authorized');
    const value = Object.hasOwn(config, key) ? config[key] : undefined;
    if (value === undefined) throw new AppError('not_found', NOT_FOUND);
    return reply.type('application/octet-stream').send(value);
  });
  app.get('/1.0/meta-data', async ({ raw }, reply) => {
    return reply.type('application/octet-stream').send(metaData(requireGuest(parts, raw)));
  });
  app.get('/1.0/devices', async ({ raw }) => visibleDevices(requireGuest(parts, raw)));
}

function registerOthers(app: FastifyInstance, parts: DevlxdParts): void {
  app.get<{ Params: { fingerprint: string } }>('/1.0/images/:fingerprint/export', async (request, reply) => {
    const guest = requireGuest(parts, request.raw);
    if (!guest.mayExportImages) throw new AppError('forbidden', 'not authorized');
    const { image, files } = await parts.image(guest, request.params.fingerprint);
    return exportImage(reply, files, image.fingerprint);
  });
  app.get('/1.0/events', async (request, reply) => {
    const guest = requireGuest(parts, request.raw);
    reply.hijack();
    parts.streamEvents(guest, request, reply);
  });
}
