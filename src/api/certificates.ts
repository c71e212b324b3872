// /1.0/certificates: who is trusted
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import { X509Certificate } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { isDeepStrictEqual } from 'node:util';
import type { CertificateRecord } from '#src/engine/db/records.ts';
import type { Engine } from '#src/engine/engine.ts';
import { addressesOf } from '#src/engine/server/environment.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ApiApp, Caller } from './app.ts';
import { peerCertificate } from './callers.ts';
import { checkIfMatch, created, operation, sync, syncWithEtag } from './envelope.ts';
import { ListQuery, partial, pathParams } from './schema.ts';
import { Type } from './type.ts';

const Content = {
  name: Type.String(),
  type: Type.String(),
  restricted: Type.Boolean(),
  projects: Type.Array(Type.String()),
};
const Certificate = Type.Object({ ...Content, certificate: Type.String(), fingerprint: Type.String() });
const Put = partial({ ...Content, certificate: Type.String() });
const Post = partial({
  ...Content,
  certificate: Type.String({ description: 'base64 of the DER form; absent: that of the TLS connection' }),
  password: Type.String({ description: 'The trust password, or a token, or its secret' }),
  trust_token: Type.String({ description: 'A token, as Incus sends it' }),
  token: Type.Boolean({ description: 'Ask for a token for a new client' }),
});
const Params = pathParams('fingerprint');

const view = ({ name, type, restricted, projects, certificate, fingerprint }: CertificateRecord) => {
  return { name, type, restricted, projects, certificate, fingerprint };
};

type Deps = Pick<Engine, 'certificates' | 'config' | 'operations' | 'serverCertificate'>;

export function registerCertificateRoutes(app: ApiApp, deps: Deps): void {
  const { certificates } = deps;
  registerAdding(app, deps);

  app.get(
    '/1.0/certificates',
    {
      schema: { summary: 'List trusted certificates', querystring: ListQuery },
      config: { answer: Type.Array(Certificate) },
    },
    async ({ query: { recursion = 0 } }) => {
      const list = certificates.list();
      return sync(recursion > 0 ? list.map(view) : list.map(({ fingerprint }) => `/1.0/certificates/${fingerprint}`));
    },
  );

  app.get(
    '/1.0/certificates/:fingerprint',
    { schema: { summary: 'Get a trusted certificate', params: Params }, config: { answer: Certificate } },
    async ({ params }, reply) => {
      const record = certificates.get(params.fingerprint);
      return syncWithEtag(reply, view(record), [view(record)]);
    },
  );

  for (const method of ['PUT', 'PATCH'] as const) {
    app.route({
      method,
      url: '/1.0/certificates/:fingerprint',
      schema: { summary: 'Change a trusted certificate', params: Params, body: Put },
      handler: async (request) => {
        const record = certificates.get(request.params.fingerprint);
        checkIfMatch(request, [view(record)]);
        const absent = method === 'PUT' ? { name: '', restricted: false, projects: [] } : record;
        const { name = absent.name, type = record.type, certificate } = request.body;
        const { restricted = absent.restricted, projects = absent.projects } = request.body;
        if (type !== record.type) throw new AppError('forbidden', 'The certificate type cannot be changed');
        const next = { name, type: record.type, restricted, projects };
        if (request.caller.projects) checkOwn(request.caller, record, next);
        certificates.update(record, { ...next, ...(certificate !== undefined && { certificate }) });
        return sync();
      },
    });
  }

  app.delete(
    '/1.0/certificates/:fingerprint',
    { schema: { summary: 'Stop trusting a certificate', params: Params }, config: { admin: true } },
    async ({ params }) => {
      certificates.delete(params.fingerprint);
      return sync();
    },
  );
}

/** Restricted clients may replace their own certificate, and change nothing else. */
function checkOwn(
  caller: Caller,
  record: CertificateRecord,
  next: Omit<CertificateRecord, 'certificate' | 'fingerprint'>,
) {
  const { name, type, restricted, projects } = record;
  if (!isDeepStrictEqual({ name, type, restricted, projects }, next)) {
    throw new AppError('forbidden', 'Only the certificate can be changed');
  }
  if (caller.requestor.username !== record.fingerprint) {
    throw new AppError('forbidden', 'Certificate cannot be changed');
  }
}

interface Grant {
  readonly name: string;
  readonly restricted: boolean;
  readonly projects: readonly string[];
}

function registerAdding(app: ApiApp, deps: Deps): void {
  const { certificates, config, operations, serverCertificate } = deps;

  app.post(
    '/1.0/certificates',
    {
      schema: { summary: 'Trust a certificate', body: Post },
      config: { creates: true, untrusted: true, admin: true },
    },
    async (request, reply) => {
      const { name = '', type = 'client', restricted = false, projects = [] } = request.body;
      if (!request.caller.trusted) {
        const added = await trustCaller(deps, request, request.body);
        return created(reply, `/1.0/certificates/${added.fingerprint}`);
      }
      if (request.body.token === true) {
        checkTokenRequest(request.body, config.listenAddress() !== undefined);
        const addresses = addressesOf(config.listenAddress());
        const { fingerprint } = serverCertificate;
        const expiresAt = config.tokenEnd(new Date());
        const id = certificates.startToken({ name, restricted, projects, fingerprint, addresses, expiresAt });
        return operation(reply, operations, id);
      }
      const { certificate = '' } = request.body;
      if (certificate === '') throw new AppError('invalid', 'Client is already trusted');
      const label = name === '' ? commonName(certificate) : name;
      const added = certificates.add({ name: label, type, certificate, restricted, projects });
      return created(reply, `/1.0/certificates/${added.fingerprint}`);
    },
  );
}

function checkTokenRequest(
  { certificate = '', type = 'client' }: { certificate?: string; type?: string },
  listens: boolean,
) {
  if (certificate !== '') throw new AppError('invalid', "Can't use certificate if token is requested");
  if (type !== 'client') throw new AppError('invalid', 'Tokens can only be issued for client certificates');
  if (!listens) throw new AppError('invalid', "Can't issue token when server isn't listening on network");
}

interface Claim {
  readonly name?: string;
  readonly password?: string;
  readonly trust_token?: string;
}

/** A client that is not trusted yet may become so: by the password for everything, by a token as was promised. */
async function trustCaller(deps: Deps, { raw, caller }: FastifyRequest, claim: Claim): Promise<CertificateRecord> {
  const { certificates } = deps;
  if (caller.hasUsableKey === false) throw new AppError('forbidden', 'not authorized');
  const { name = '' } = claim;
  const granted = await grantOf(deps, claim);
  const peer = peerCertificate(raw);
  if (!granted || !peer) throw new AppError('forbidden', 'not authorized');
  const certificate = peer.toString('base64');
  const label = [granted.name, name, commonName(certificate)].find((text) => text !== '') ?? '';
  return certificates.add({ ...granted, name: label, type: 'client', certificate });
}

async function grantOf({ certificates, config }: Deps, claim: Claim): Promise<Grant | undefined> {
  const { name = '', password = '', trust_token: token = '' } = claim;
  const secret = token === '' ? password : token;
  if (await config.isTrustPassword(secret)) return { name, restricted: false, projects: [] };
  return certificates.useToken(secret) ?? certificates.useToken(secretOf(secret));
}

/** What `config trust add` printed: base64 of JSON with the secret in it. */
function secretOf(token: string): string {
  try {
    const { secret } = JSON.parse(Buffer.from(token, 'base64').toString('utf8')) as { secret?: unknown };
    return typeof secret === 'string' ? secret : '';
  } catch {
    return ''; // not a token: as good as a wrong one
  }
}

function commonName(certificate: string): string {
  try {
    return /CN=(.*)/u.exec(new X509Certificate(Buffer.from(certificate, 'base64')).subject)?.[1] ?? '';
  } catch {
    return ''; // the engine says what is wrong with it
  }
}
