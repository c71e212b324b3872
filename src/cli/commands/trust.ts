// lighter config trust: who may speak to the engine over the network.
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Command } from 'commander';
import type { EngineClient } from '#src/client/client.ts';
import { type Certificate, type Operation, STATUS } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { ask } from '../ask.ts';
import type { Cli } from '../cli.ts';
import { formatTime } from '../format.ts';
import { addDelete, addEdit, addListing, addShow, type Kind, listOf, remoteFirst, url } from '../resource.ts';
import { tokenText } from '../token.ts';

const TRUST_KIND: Kind = {
  noun: 'trusted client',
  title: 'Certificate',
  names: ['<fingerprint>'],
  group: 'config trust',
  example: '60dc8ab01ed4',
  path: ([fingerprint = '']) => url('certificates', fingerprint),
  fields: ['name', 'type', 'restricted', 'projects', 'certificate'],
  shown: ['name', 'type', 'restricted', 'projects', 'certificate', 'fingerprint'],
};

interface AddOptions {
  readonly name?: string;
  readonly projects?: string;
  readonly restricted?: boolean;
  readonly type: string;
}

interface TokenMetadata {
  readonly secret: string;
  readonly fingerprint: string;
  readonly addresses: readonly string[];
  readonly expiresAt?: string;
  readonly request?: { readonly name?: string };
}

export function addTrustCommands(config: Command, cli: Cli): void {
  const trust = config.command('trust').description('Manage trusted clients');
  trust
    .command('add')
    .description('Add new trusted client')
    .usage('[options] [remote:] [certificate file]')
    .argument('[word...]', 'a certificate; without one a token is made, for `remote add` at the client')
    .option('--name <name>', 'Alternative certificate name')
    .option('--projects <list>', 'List of projects to restrict the certificate to')
    .option('--restricted', 'Restrict the certificate to one or more projects')
    .option('--type <type>', 'Type of certificate: client or metrics', 'client')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter config trust add alice.crt\n  lighter config trust add --name alice --restricted --projects team',
    )
    .action(async (words: readonly string[], options: AddOptions) => {
      const [remote, [file]] = remoteFirst(words);
      const { client } = await cli.at(remote);
      if (file === undefined) await addToken(cli, client, options);
      else await addCertificate(cli, client, file, options);
    });
  addListing(trust, cli, {
    description: 'List trusted clients',
    columns: [
      { header: 'TYPE', cell: ({ type }: Certificate) => type },
      { header: 'NAME', cell: ({ name }) => name },
      { header: 'COMMON NAME', cell: ({ certificate }) => commonName(certificate) },
      { header: 'FINGERPRINT', cell: ({ fingerprint }) => fingerprint.slice(0, 12) },
      { header: 'ISSUE DATE', cell: ({ certificate }) => dateOf(certificate, 'validFromDate') },
      { header: 'EXPIRY DATE', cell: ({ certificate }) => dateOf(certificate, 'validToDate') },
    ],
    load: async (client) => listOf<Certificate>(cli, client, '/1.0/certificates'),
    by: ({ name, fingerprint }) => `${name} ${fingerprint}`,
  });
  addShow(trust, cli, TRUST_KIND);
  addEdit(trust, cli, TRUST_KIND);
  addDelete(trust, cli, TRUST_KIND, 'remove');
  addTokenCommands(trust, cli);
}

function addTokenCommands(trust: Command, cli: Cli): void {
  addListing(trust, cli, {
    name: 'list-tokens',
    description: 'List all active certificate add tokens',
    columns: [
      { header: 'NAME', cell: ({ metadata }: Operation) => nameOf(metadata) },
      { header: 'TOKEN', cell: ({ metadata }) => textOf(metadata) },
      { header: 'EXPIRES AT', cell: ({ metadata }) => formatTime(tokenOf(metadata).expiresAt ?? '') ?? '' },
    ],
    load: async (client) => tokens(cli, client),
    by: ({ metadata }) => nameOf(metadata),
  });
  trust
    .command('revoke-token')
    .description('Revoke certificate add token')
    .usage('[options] [remote:] <name>')
    .argument('<word...>', 'name of the token')
    .addHelpText('after', '\nExample:\n  lighter config trust revoke-token alice')
    .action(async (words: readonly string[]) => {
      const [remote, [name = '']] = remoteFirst(words);
      const { client } = await cli.at(remote);
      const found = (await tokens(cli, client)).find(({ metadata }) => nameOf(metadata) === name);
      if (!found)
        throw new AppError(
          'not_found',
          `No certificate add token for "${name}" on remote "${cli.split(remote).remote}"`,
        );
      await client.operations.cancel(found.id, cli.signal);
    });
}

async function addCertificate(cli: Cli, client: EngineClient, file: string, options: AddOptions): Promise<void> {
  if (basename(file) === 'client.crt' && options.name === undefined) {
    cli.say('Hint: --name gives it a better name than "client.crt"');
  }
  const certificate = new X509Certificate(await readFile(file));
  const body = {
    ...bodyOf(options, options.name ?? basename(file)),
    certificate: certificate.raw.toString('base64'),
  };
  await client.request('POST', '/1.0/certificates', { body, signal: cli.signal });
}

async function addToken(cli: Cli, client: EngineClient, options: AddOptions): Promise<void> {
  if (options.type !== 'client') throw new AppError('invalid', 'A token is for certificates of type "client" only');
  const name = options.name ?? (await ask(cli, 'Please provide client name: ')).trim();
  const body = { ...bodyOf(options, name), token: true };
  const { envelope } = await client.request('POST', '/1.0/certificates', { body, signal: cli.signal });
  cli.say(`Client ${name} certificate add token:`);
  cli.print(textOf((envelope.metadata as Operation).metadata));
}

function bodyOf({ type, restricted, projects }: AddOptions, name: string): object {
  const list = (projects ?? '').split(',').filter((project) => project !== '');
  return { name, type, restricted: restricted === true, projects: list };
}

async function tokens(cli: Cli, client: EngineClient): Promise<readonly Operation[]> {
  const operations = await client.operations.list(cli.signal);
  // Tokens of images and of cluster members have no request.
  return operations.filter(
    ({ class: kind, metadata, status_code }) =>
      kind === 'token' && status_code === STATUS.running && metadata?.['request'] !== undefined,
  );
}

function tokenOf(metadata: Operation['metadata']): TokenMetadata {
  return metadata as unknown as TokenMetadata;
}

function nameOf(metadata: Operation['metadata']): string {
  return tokenOf(metadata).request?.name ?? '';
}

function textOf(metadata: Operation['metadata']): string {
  const { secret, fingerprint, addresses, expiresAt } = tokenOf(metadata);
  return tokenText({ name: nameOf(metadata), secret, fingerprint, addresses, expiresAt });
}

function commonName(pem: string): string {
  return /^CN=(.*)$/m.exec(new X509Certificate(pem).subject)?.[1] ?? '';
}

function dateOf(pem: string, field: 'validFromDate' | 'validToDate'): string {
  return formatTime(new X509Certificate(pem)[field].toISOString()) ?? '';
}
