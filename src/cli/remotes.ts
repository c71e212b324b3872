// Remotes and aliases: a directory of the form that lxc keeps, so that both programs can share one.
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { formatYaml, sorted } from './format.ts';

export interface Remote {
  /** unix://, unix:///PATH or https://HOST:PORT */
  readonly addr: string;
  readonly auth_type?: string;
  readonly project?: string;
  /** lxd when absent. */
  readonly protocol?: string;
  readonly public: boolean;
}

const BUILT_IN: Readonly<Record<string, Remote>> = {
  images: { addr: 'https://images.linuxcontainers.org', protocol: 'simplestreams', public: true },
  local: { addr: 'unix://', public: false },
  ubuntu: { addr: 'https://cloud-images.ubuntu.com/releases', protocol: 'simplestreams', public: true },
  'ubuntu-daily': { addr: 'https://cloud-images.ubuntu.com/daily', protocol: 'simplestreams', public: true },
};
/** Cannot be changed or removed; `local` may get a project. */
const STATIC = new Set(['local', 'ubuntu', 'ubuntu-daily']);
const FILE = 'config.yml';

type Fields = Readonly<Record<string, unknown>>;

export class Remotes {
  readonly directory: string;
  readonly #remotes: Map<string, Remote>;
  readonly #aliases: Map<string, string>;
  /** What else the file holds is kept. */
  readonly #rest: Fields;
  #defaultName: string;

  private constructor(directory: string, content: Fields) {
    const { 'default-remote': defaultRemote, remotes, aliases, ...rest } = content;
    this.directory = directory;
    this.#rest = rest;
    this.#defaultName = typeof defaultRemote === 'string' && defaultRemote !== '' ? defaultRemote : 'local';
    this.#remotes = new Map(Object.entries(BUILT_IN));
    for (const [name, remote] of Object.entries(fieldsOf(remotes, 'remotes'))) {
      const given = remoteOf(name, remote);
      this.#remotes.set(name, STATIC.has(name) ? withProject(BUILT_IN[name], given.project) : given);
    }
    const texts = Object.entries(fieldsOf(aliases, 'aliases'));
    this.#aliases = new Map(texts.map(([name, text]) => [name, String(text)]));
  }

  /** AppError 'invalid' when the file is not of the form that lxc writes. */
  static async load(directory: string): Promise<Remotes> {
    const path = join(directory, FILE);
    try {
      return new Remotes(directory, fieldsOf(parse(await readFile(path, 'utf8')), 'the file'));
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return new Remotes(directory, {});
      throw new AppError('invalid', `Cannot read ${path}: ${messageOf(error)}`, { cause: error });
    }
  }

  get defaultName(): string {
    return this.#defaultName;
  }

  get all(): ReadonlyMap<string, Remote> {
    return this.#remotes;
  }

  get aliases(): ReadonlyMap<string, string> {
    return this.#aliases;
  }

  isStatic(name: string): boolean {
    return STATIC.has(name);
  }

  get(name: string): Remote {
    const found = this.#remotes.get(name);
    if (found) return found;
    throw new AppError('not_found', `The remote "${name}" doesn't exist`);
  }

  async setDefault(name: string): Promise<void> {
    this.get(name);
    this.#defaultName = name;
    await this.#save();
  }

  async set(name: string, remote: Remote): Promise<void> {
    this.#remotes.set(name, remote);
    await this.#save();
  }

  /** Its certificate goes along. */
  async rename(name: string, newName: string, remote: Remote): Promise<void> {
    await moveIfThere(this.certificatePath(name), this.certificatePath(newName));
    this.#remotes.delete(name);
    this.#remotes.set(newName, remote);
    if (this.#defaultName === name) this.#defaultName = newName;
    await this.#save();
  }

  async remove(name: string): Promise<void> {
    await rm(this.certificatePath(name), { force: true });
    this.#remotes.delete(name);
    await this.#save();
  }

  /** Undefined removes it. */
  async setAlias(name: string, text: string | undefined): Promise<void> {
    if (text === undefined) this.#aliases.delete(name);
    else this.#aliases.set(name, text);
    await this.#save();
  }

  certificatePath(name: string): string {
    return join(this.directory, 'servercerts', `${name}.crt`);
  }

  async #save(): Promise<void> {
    const remotes = [...this.#remotes].filter(([name, remote]) => remote !== BUILT_IN[name]);
    const content = {
      'default-remote': this.#defaultName,
      remotes: sorted(Object.fromEntries(remotes)),
      aliases: sorted(Object.fromEntries(this.#aliases)),
      ...this.#rest,
    };
    const path = join(this.directory, FILE);
    await mkdir(this.directory, { recursive: true, mode: 0o750 });
    await writeFile(`${path}.${process.pid}`, formatYaml(content), { mode: 0o600 });
    await rename(`${path}.${process.pid}`, path);
  }
}

function withProject(remote: Remote | undefined, project: string | undefined): Remote {
  return { addr: '', public: false, ...remote, ...(project !== undefined && { project }) };
}

function fieldsOf(value: unknown, what: string): Fields {
  if (value === undefined || value === null) return {};
  if (typeof value === 'object' && !Array.isArray(value)) return value as Fields;
  throw new AppError('invalid', `${what}: not a map`);
}

function remoteOf(name: string, value: unknown): Remote {
  const { addr, public: isPublic = false, ...rest } = fieldsOf(value, name);
  if (typeof addr !== 'string') throw new AppError('invalid', `remote ${name}: no addr`);
  return { ...rest, addr, public: isPublic === true };
}

async function moveIfThere(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
  }
}
