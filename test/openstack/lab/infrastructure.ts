// What OpenStack stands on: message queue, database, cache.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from './commands.ts';
import { type Processes, portAnswers } from './processes.ts';
import { type LabPaths, PASSWORD, PORTS } from './settings.ts';

export const DATABASES = ['keystone', 'placement', 'glance', 'neutron', 'nova', 'nova_api', 'nova_cell0'] as const;
export type Database = (typeof DATABASES)[number];

/** A private node: own port mapper, own cookie, no busy waiting on few cores. */
function rabbitEnv({ data, log, etc, run: pids }: LabPaths): Record<string, string> {
  return {
    HOME: join(data, 'rabbit'),
    RABBITMQ_NODENAME: 'lighter@localhost',
    RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
    RABBITMQ_NODE_PORT: String(PORTS.rabbitmq),
    RABBITMQ_DIST_PORT: String(PORTS.rabbitmqDistribution),
    RABBITMQ_MNESIA_BASE: join(data, 'rabbit', 'mnesia'),
    RABBITMQ_LOG_BASE: join(log, 'rabbit'),
    RABBITMQ_CONFIG_FILE: join(etc, 'rabbitmq'),
    RABBITMQ_CONF_ENV_FILE: '/dev/null',
    RABBITMQ_ENABLED_PLUGINS_FILE: join(etc, 'rabbit_plugins'),
    RABBITMQ_LOGS: '-',
    RABBITMQ_PID_FILE: join(pids, 'rabbitmq.own'),
    ERL_EPMD_PORT: String(PORTS.epmd),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS:
      '-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none',
  };
}

/** rabbitmqctl on the lab's node. */
export async function rabbitctl(paths: LabPaths, ...args: readonly string[]): Promise<string> {
  return await run(['/usr/lib/rabbitmq/bin/rabbitmqctl', '-q', ...args], { env: rabbitEnv(paths) });
}

export async function startRabbit(paths: LabPaths, processes: Processes): Promise<void> {
  mkdirSync(join(paths.data, 'rabbit', 'mnesia'), { recursive: true });
  mkdirSync(join(paths.log, 'rabbit'), { recursive: true });
  processes.start({ name: 'epmd', argv: ['epmd', '-address', '127.0.0.1', '-port', String(PORTS.epmd)] });
  processes.start({ name: 'rabbitmq', argv: ['/usr/lib/rabbitmq/bin/rabbitmq-server'], env: rabbitEnv(paths) });
  await processes.waitFor('rabbitmq', () => portAnswers(PORTS.rabbitmq));
  await rabbitctl(paths, 'await_startup');
}

/** Neutron keeps to a virtual host of its own. */
export async function ensureVirtualHosts(paths: LabPaths): Promise<void> {
  const hosts = (await rabbitctl(paths, 'list_vhosts')).split('\n');
  if (!hosts.includes('neutron')) await addVirtualHost(paths, 'neutron');
}

export async function addVirtualHost(paths: LabPaths, name: string): Promise<void> {
  await rabbitctl(paths, 'add_vhost', name);
  await rabbitctl(paths, 'set_permissions', '-p', name, 'guest', '.*', '.*', '.*');
}

export async function sql(paths: LabPaths, statement: string): Promise<string> {
  const socket = join(paths.run, 'mysql.sock');
  return await run(['mariadb', '--no-defaults', '-S', socket, '-uroot', '-N', '-e', statement]);
}

async function startDatabase(paths: LabPaths, processes: Processes): Promise<void> {
  const directory = join(paths.data, 'mysql');
  if (!existsSync(join(directory, 'mysql'))) {
    await run([
      'mariadb-install-db',
      '--no-defaults',
      '--user=root',
      `--datadir=${directory}`,
      '--auth-root-authentication-method=normal',
      '--skip-test-db',
    ]);
  }
  processes.start({ name: 'mariadb', argv: ['mariadbd', `--defaults-file=${join(paths.etc, 'my.cnf')}`] });
  await processes.waitFor('mariadb', () => portAnswers(PORTS.mariadb));
}

/** Those that are missing, and the right to use them, through the socket as well as not. */
export async function createDatabases(paths: LabPaths, names: readonly string[] = DATABASES): Promise<void> {
  const grant = (name: string, host: string) =>
    `GRANT ALL ON ${name}.* TO 'lab'@'${host}' IDENTIFIED BY '${PASSWORD}';`;
  const statements = names.flatMap((name) => [
    `CREATE DATABASE IF NOT EXISTS ${name} CHARACTER SET utf8;`,
    grant(name, 'localhost'),
    grant(name, '127.0.0.1'),
  ]);
  await sql(paths, statements.join('\n'));
}

export async function dropDatabases(paths: LabPaths, names: readonly Database[]): Promise<void> {
  await sql(paths, names.map((name) => `DROP DATABASE IF EXISTS ${name};`).join('\n'));
}

export async function startInfrastructure(paths: LabPaths, processes: Processes): Promise<void> {
  const memcached = [
    'memcached',
    '-u',
    'root',
    '-l',
    '127.0.0.1',
    '-p',
    String(PORTS.memcached),
    '-U',
    '0',
    '-m',
    '64',
  ] as const;
  processes.start({ name: 'memcached', argv: memcached });
  await Promise.all([startRabbit(paths, processes), startDatabase(paths, processes)]);
  await ensureVirtualHosts(paths);
  await processes.waitFor('memcached', () => portAnswers(PORTS.memcached));
}

/** Runs `work` once in the life of the lab's data. */
export async function once(paths: LabPaths, name: string, work: () => Promise<void>): Promise<void> {
  const marker = join(paths.data, `.done-${name}`);
  if (existsSync(marker)) return;
  await work();
  writeFileSync(marker, '');
  await sleep(0);
}
