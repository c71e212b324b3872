// lighter remote add: the server's certificate is looked at and kept, and ours is made known there.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Command, Option } from 'commander';
import { EngineClient } from '#src/client/client.ts';
import { kindOf, AppError } from '#src/lib/errors.ts';
import { ask, askSecret } from '../ask.ts';
import type { Cli } from '../cli.ts';
import { endpointOf } from '../connect.ts';
import type { Remote } from '../remotes.ts';
import { fetchCertificate } from '../server-certificate.ts';
import { readToken, type Token } from '../token.ts';

const DEFAULT_PORT = 8443;

interface AddOptions {
  readonly acceptCertificate?: boolean;
  readonly password?: string;
  readonly project?: string;
  readonly protocol: string;
  readonly public?: boolean;
}

export function addRemoteAdd(remote: Command, cli: Cli): void {
  remote
    .command('add')
    .description('Add new remote servers')
    .usage('[options] [remote] <address|URL|token>')
    .argument('<word...>', 'a name, and an address, a URL or a token; by itself the address is the name')
    .option('--accept-certificate', 'Accept the certificate unseen')
    .option('--password <text>', 'Password of the engine (core.trust_password)')
    .option('--project <name>', 'Project to use for the remote')
    .addOption(new Option('--protocol <name>', 'Server protocol').choices(['lxd', 'simplestreams']).default('lxd'))
    .option('--public', 'Public image server')
    .addHelpText(
      'after',
      `
A token comes from \`lighter config trust add --name NAME\` on the other machine.

Examples:
  lighter remote add other 10.0.0.2
  lighter remote add other eyJjbGllbnRfbmFtZSI6…
  lighter remote add pictures https://example.org/images --protocol simplestreams`,
    )
    .action(async (words: readonly string[], options: AddOptions) => {
      const [first = '', second, third] = words;
      if (third !== undefined) throw new AppError('invalid', 'Give a name and an address, no more');
      const address = second ?? first;
      const name = second === undefined ? first.replace(/^https?:\/\//, '').replace(/[:/].*$/, '') : first;
      await add(cli, { name: name.replace(/:$/, ''), address }, options);
    });
}

async function add(
  cli: Cli,
  { name, address }: { readonly name: string; readonly address: string },
  options: AddOptions,
): Promise<void> {
  const token = readToken(address);
  const wanted = token && name === address ? token.name : name;
  const known = cli.remotes.all.get(wanted);
  if (known) throw new AppError('conflict', `Remote ${wanted} exists as <${known.addr}>`);
  if (!/^[A-Za-z0-9._-]+$/.test(wanted)) throw new AppError('invalid', `Not a name for a remote: ${wanted}`);
  const simple = withoutHandshake(address, options.protocol);
  if (simple) return cli.remotes.set(wanted, simple);
  await addEngine(cli, wanted, { addresses: token?.addresses ?? [address], token, options });
}

/** An image server, or an engine on this machine: there is nobody to be introduced to. */
function withoutHandshake(address: string, protocol: string): Remote | undefined {
  if (protocol === 'simplestreams') {
    if (address.startsWith('https://')) return { addr: address, protocol, public: true };
    throw new AppError('invalid', 'Only https URLs are supported for simplestreams');
  }
  if (address.startsWith('unix:')) return { addr: address, public: false };
  return address.startsWith('/') ? { addr: `unix://${address}`, public: false } : undefined;
}

interface Candidate {
  readonly addresses: readonly string[];
  readonly token: Token | undefined;
  readonly options: AddOptions;
}

async function addEngine(cli: Cli, name: string, { addresses, token, options }: Candidate): Promise<void> {
  const { url, pem, fingerprint } = await firstThatAnswers(cli, addresses);
  if (token) {
    if (token.fingerprint !== fingerprint) {
      throw new AppError('forbidden', `Certificate fingerprint mismatch between certificate token and server "${url}"`);
    }
  } else if (options.acceptCertificate !== true) await accept(cli, fingerprint);
  const path = cli.remotes.certificatePath(name);
  await mkdir(dirname(path), { recursive: true, mode: 0o750 });
  await writeFile(path, pem, { mode: 0o644 });
  await cli.remotes.set(name, {
    addr: url,
    auth_type: 'tls',
    protocol: 'lxd',
    public: options.public === true,
    ...(options.project !== undefined && { project: options.project }),
  });
  try {
    if (options.public !== true) await introduce(cli, name, { token, options });
  } catch (error) {
    await cli.remotes.remove(name);
    throw error;
  }
}

async function firstThatAnswers(
  cli: Cli,
  addresses: readonly string[],
): Promise<{ readonly url: string; readonly pem: string; readonly fingerprint: string }> {
  const failures: string[] = [];
  for (const address of addresses) {
    const url = urlOf(address);
    try {
      return { url, ...(await fetchCertificate(url, cli.signal)) };
    } catch (error) {
      if (kindOf(error) !== 'unavailable') throw error;
      failures.push(error instanceof Error ? error.message : url);
    }
  }
  throw new AppError(
    'unavailable',
    `${failures.join('\n')}\nDoes it listen? lighter config get core.https_address tells it there.`,
  );
}

/** host, host:port, [v6]:port or a URL. */
function urlOf(address: string): string {
  const text = /^https?:\/\//.test(address)
    ? address
    : `https://${/^[0-9a-f:]+:[0-9a-f:]*$/i.test(address) && address.split(':').length > 2 ? `[${address}]` : address}`;
  let url: URL;
  try {
    url = new URL(text);
  } catch (error) {
    throw new AppError('invalid', `Not an address: ${address}`, { cause: error });
  }
  if (url.protocol !== 'https:') throw new AppError('invalid', 'Only https URLs are supported');
  return `https://${url.hostname}:${url.port === '' ? DEFAULT_PORT : url.port}`;
}

async function accept(cli: Cli, fingerprint: string): Promise<void> {
  cli.print(`Certificate fingerprint: ${fingerprint}`);
  const answer = (await ask(cli, 'ok (y/n/[fingerprint])? ')).trim().toLowerCase();
  const isFingerprint = answer.length > 3 && answer === fingerprint;
  if (!isFingerprint && answer !== 'y' && answer !== 'yes') {
    throw new AppError('forbidden', 'Server certificate NACKed by user');
  }
}

/** Our certificate gets trusted, with the token's secret or the engine's password. */
async function introduce(
  cli: Cli,
  name: string,
  { token, options }: Pick<Candidate, 'token' | 'options'>,
): Promise<void> {
  using client = new EngineClient({ endpoint: await endpointOf(cli.remotes, name, cli.terminal.socketPath) });
  const { auth } = await client.server(cli.signal);
  if (auth === 'trusted') return;
  const password =
    token?.secret ?? options.password ?? (await askSecret(cli, `Admin password (or token) for ${name}: `));
  const given = readToken(password)?.secret ?? password;
  await client.request('POST', '/1.0/certificates', { body: { type: 'client', password: given }, signal: cli.signal });
  if ((await client.server(cli.signal)).auth !== 'trusted') {
    throw new AppError('forbidden', "Server doesn't trust us after authentication");
  }
  cli.say(`Client certificate now trusted by server: ${name}`);
}
