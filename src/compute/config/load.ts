// Reads nova's configuration files, in oslo.config's order, into a ComputeConfig.
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { composeConfig } from './compose.ts';
import type { ComputeConfig } from './config.ts';
import { type Complaint, type IniFile, parseIni } from './ini.ts';
import { Options } from './options.ts';

/** One --config-file or --config-dir of the command line, in the order given. */
export interface ConfigSource {
  readonly kind: 'file' | 'folder';
  readonly path: string;
}

/** What the machine and the process give; collected in the composition root. */
export interface ConfigMachine {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly hostname: string;
  readonly address: string;
  readonly homeFolder: string;
  readonly tempFolder: string;
}

/** All that is wrong with the configuration, at once. */
export class ConfigError extends AppError {
  readonly complaints: readonly Complaint[];

  constructor(complaints: readonly Complaint[]) {
    const lines = complaints.map(({ origin, message }) => `${origin}: ${message}`);
    super('invalid', ['the configuration cannot be used:', ...lines].join('\n  '));
    this.complaints = complaints;
  }
}

/** Without `sources` the default places are searched: ~/.nova, ~, /etc/nova, /etc. Throws ConfigError. */
export async function loadComputeConfig(
  sources: readonly ConfigSource[],
  machine: ConfigMachine,
): Promise<ComputeConfig> {
  const given = sources.length > 0 ? sources : await defaultSources(machine.homeFolder);
  const paths = (await Promise.all(given.map(filesOf))).flat();
  const files = await Promise.all(paths.map(readIni));
  const { environment, hostname, address, tempFolder } = machine;
  const machineDefaults = { host: hostname, my_ip: address, tempdir: tempFolder };
  const options = new Options({ files, environment, machineDefaults });
  const config = composeConfig(options, [...new Set(paths.map((path) => dirname(path)))]);
  if (options.complaints.length > 0) throw new ConfigError(options.complaints);
  return config;
}

async function filesOf({ kind, path }: ConfigSource): Promise<readonly string[]> {
  if (kind === 'file') return [path];
  try {
    const names = await readdir(path);
    return names
      .filter((name) => name.endsWith('.conf'))
      .sort()
      .map((name) => join(path, name));
  } catch (error) {
    throw new AppError('not_found', `configuration folder ${path} cannot be read`, { cause: error });
  }
}

async function readIni(path: string): Promise<IniFile> {
  try {
    return parseIni(await readFile(path, 'utf8'), path);
  } catch (error) {
    throw new AppError('not_found', `configuration file ${path} cannot be read`, { cause: error });
  }
}

/** The first nova.conf and the first nova-compute.conf, then the folders nova.conf.d and nova-compute.conf.d. */
async function defaultSources(home: string): Promise<readonly ConfigSource[]> {
  const places = [join(home, '.nova'), home, '/etc/nova', '/etc'];
  const found = await Promise.all(
    ['nova.conf', 'nova-compute.conf', 'nova.conf.d', 'nova-compute.conf.d'].map((name) => firstExisting(places, name)),
  );
  const sources = found.filter((source) => source !== undefined);
  if (sources.length === 0) {
    throw new AppError('not_found', `no nova.conf in ${places.join(', ')}; name one with --config-file`);
  }
  return sources;
}

async function firstExisting(places: readonly string[], name: string): Promise<ConfigSource | undefined> {
  for (const place of places) {
    const entries = await readdir(place, { withFileTypes: true }).catch(() => []);
    const entry = entries.find((candidate) => candidate.name === name);
    if (entry) return { kind: name.endsWith('.d') ? 'folder' : 'file', path: join(place, name) };
  }
  return undefined;
}
