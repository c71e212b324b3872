// A RabbitMQ of one's own for a test file: private ports, data, cookie and epmd, in a temporary directory.
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, connect, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const EPMD = '/usr/bin/epmd';
const SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server';
const START_LIMIT_MS = 90_000;

export interface RabbitOptions {
  /** Creates a CA and certificates and listens with TLS as well. */
  readonly tls?: boolean;
  /** More lines for rabbitmq.conf. */
  readonly config?: readonly string[];
}

export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export class Rabbit implements AsyncDisposable {
  readonly folder: string;
  readonly port: number;
  readonly tlsPort: number;
  readonly #env: Record<string, string>;
  readonly #epmd: ChildProcess;
  #server: ChildProcess | undefined;

  private constructor(
    folder: string,
    ports: { port: number; tlsPort: number },
    env: Record<string, string>,
    epmd: ChildProcess,
  ) {
    this.folder = folder;
    this.port = ports.port;
    this.tlsPort = ports.tlsPort;
    this.#env = env;
    this.#epmd = epmd;
  }

  static async start({ tls = false, config = [] }: RabbitOptions = {}): Promise<Rabbit> {
    const folder = await mkdtemp(join(tmpdir(), 'rabbit-'));
    const [port, tlsPort, epmdPort, distPort] = await freePorts(4);
    if (tls) await makeCertificates(join(folder, 'tls'));
    await mkdir(join(folder, 'mnesia'));
    const lines = [
      'loopback_users = none',
      'disk_free_limit.absolute = 50MB',
      'log.console = true',
      'log.file = false',
      'log.console.level = warning',
      `listeners.tcp.1 = 127.0.0.1:${port}`,
      ...(tls ? tlsConfig(join(folder, 'tls'), tlsPort) : []),
      ...config,
    ];
    await writeFile(join(folder, 'rabbitmq.conf'), `${lines.join('\n')}\n`);
    await writeFile(join(folder, 'enabled_plugins'), tls ? '[rabbitmq_auth_mechanism_ssl].\n' : '[].\n');
    const env = environment(folder, { epmdPort, distPort });
    // rabbitmq-server would leave an epmd of its own behind
    const epmd = spawn(EPMD, ['-port', String(epmdPort), '-address', '127.0.0.1'], { stdio: 'ignore' });
    const rabbit = new Rabbit(folder, { port, tlsPort }, env, epmd);
    try {
      await rabbit.start();
    } catch (error) {
      await rabbit[Symbol.asyncDispose]();
      throw error;
    }
    return rabbit;
  }

  get tls(): TlsFiles {
    const file = (name: string): string => join(this.folder, 'tls', name);
    return { ca: file('ca.pem'), cert: file('client.pem'), key: file('client.key') };
  }

  /** transport_url as guest. */
  url(virtualHost = '/', query = ''): string {
    return `rabbit://guest:guest@127.0.0.1:${this.port}/${encodeURIComponent(virtualHost)}${query}`;
  }

  /** Resolves when it accepts connections; durable queues of before are there again. */
  async start(): Promise<void> {
    const output: Buffer[] = [];
    const server = spawn(SERVER, [], { env: this.#env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    server.stdout.on('data', (chunk: Buffer) => output.push(chunk));
    server.stderr.on('data', (chunk: Buffer) => output.push(chunk));
    this.#server = server;
    const giveUpAt = Date.now() + START_LIMIT_MS;
    while (!(await greets(this.port))) {
      if (server.exitCode !== null || Date.now() > giveUpAt) {
        throw new Error(`rabbitmq-server did not start: ${Buffer.concat(output).toString()}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Orderly, or as a power cut. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server?.pid === undefined || server.exitCode !== null || server.signalCode !== null) return;
    const gone = new Promise((resolve) => server.once('close', resolve));
    if (signal === 'SIGTERM') {
      process.kill(Number(await readFile(join(this.folder, 'pid'), 'utf8')), 'SIGTERM');
      const limit = setTimeout(() => process.kill(-(server.pid ?? 0), 'SIGKILL'), 30_000);
      await gone;
      clearTimeout(limit);
    } else {
      process.kill(-server.pid, 'SIGKILL');
      await gone;
    }
  }

  /** Frozen and thawed: it keeps its sockets and says nothing. */
  pause(): void {
    process.kill(-(this.#server?.pid ?? 0), 'SIGSTOP');
  }

  resume(): void {
    process.kill(-(this.#server?.pid ?? 0), 'SIGCONT');
  }

  /** Virtual hosts that guest may use. */
  async addVirtualHosts(...names: readonly string[]): Promise<void> {
    const all = '<<".*">>, <<".*">>, <<".*">>';
    const steps = names.map((name) => {
      const binary = `<<${JSON.stringify(name)}>>`;
      return `rabbit_vhost:add(${binary}, <<"test">>), rabbit_auth_backend_internal:set_permissions(<<"guest">>, ${binary}, ${all}, <<"test">>)`;
    });
    await this.ctl('eval', `${steps.join(', ')}.`);
  }

  /** Takes about two seconds each: an Erlang VM starts. */
  async ctl(...args: readonly string[]): Promise<string> {
    const { stdout } = await promisify(execFile)('/usr/lib/rabbitmq/bin/rabbitmqctl', ['-q', ...args], {
      env: this.#env,
    });
    return stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop('SIGKILL');
    this.#epmd.kill('SIGKILL');
    await rm(this.folder, { recursive: true, force: true });
  }
}

function environment(folder: string, ports: { epmdPort: number; distPort: number }): Record<string, string> {
  const quiet = '+sbwt none +sbwtdcpu none +sbwtdio none';
  return {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    LC_ALL: 'C.UTF-8',
    HOME: folder, // the Erlang cookie
    RABBITMQ_NODENAME: `test${ports.distPort}@localhost`,
    RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
    RABBITMQ_DIST_PORT: String(ports.distPort),
    RABBITMQ_MNESIA_BASE: join(folder, 'mnesia'),
    RABBITMQ_LOG_BASE: folder,
    RABBITMQ_CONFIG_FILE: join(folder, 'rabbitmq'),
    RABBITMQ_CONF_ENV_FILE: '/dev/null',
    RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'enabled_plugins'),
    RABBITMQ_LOGS: '-',
    RABBITMQ_PID_FILE: join(folder, 'pid'),
    ERL_EPMD_PORT: String(ports.epmdPort),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: `-kernel inet_dist_use_interface {127,0,0,1} ${quiet}`,
  };
}

/** Accepts AMQP, not only TCP: the listener opens last, but a proxy or a dying broker would accept as well. */
function greets(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('AMQP\0\0\x09\x01'));
    const end = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('data', () => end(true));
    socket.once('error', () => end(false));
    socket.once('close', () => end(false));
    socket.setTimeout(1000, () => end(false));
  });
}

async function freePorts(count: 4): Promise<[number, number, number, number]> {
  const servers = await Promise.all(
    Array.from({ length: count }, () => {
      const server = createServer();
      return new Promise<typeof server>((resolve) => {
        server.listen(0, '127.0.0.1', () => resolve(server));
      });
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports as [number, number, number, number];
}

function tlsConfig(folder: string, port: number): readonly string[] {
  return [
    `listeners.ssl.1 = 127.0.0.1:${port}`,
    `ssl_options.cacertfile = ${folder}/ca.pem`,
    `ssl_options.certfile = ${folder}/server.pem`,
    `ssl_options.keyfile = ${folder}/server.key`,
    'ssl_options.verify = verify_peer',
    'ssl_options.fail_if_no_peer_cert = false',
    'ssl_cert_login_from = common_name',
    'auth_mechanisms.1 = PLAIN',
    'auth_mechanisms.2 = AMQPLAIN',
    'auth_mechanisms.3 = EXTERNAL',
  ];
}

/** A CA, a server certificate for the name broker.test, and a client certificate for the user guest. */
async function makeCertificates(folder: string): Promise<void> {
  await mkdir(folder);
  const openssl = (...args: string[]): Promise<unknown> => promisify(execFile)('openssl', args, { cwd: folder });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  await openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=test CA', '-days', '2');
  for (const [name, subject] of [
    ['server', 'broker.test'],
    ['client', 'guest'],
  ] as const) {
    await openssl('req', ...key, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${subject}`);
    const ca = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2'];
    await openssl('x509', '-req', '-in', `${name}.csr`, ...ca, '-out', `${name}.pem`);
    await chmod(join(folder, `${name}.key`), 0o600);
  }
}
