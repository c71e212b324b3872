// Profiles, storage pools and networks of the engine: plain resources without operations.
import type { Transport } from './transport.ts';
import type { Network, Profile, ProfilePut, StoragePool, StoragePoolResources } from './wire.ts';

export class Profiles {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  async list(signal?: AbortSignal): Promise<readonly Profile[]> {
    return listOf<Profile>(this.#transport, '/1.0/profiles', signal);
  }

  async get(name: string, signal?: AbortSignal): Promise<Profile> {
    return one<Profile>(this.#transport, profilePath(name), signal);
  }

  async create(profile: ProfilePut & { readonly name: string }, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('POST', '/1.0/profiles', { body: profile, signal });
  }

  /** Replaces everything that can be set. */
  async update(name: string, profile: ProfilePut, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('PUT', profilePath(name), { body: profile, signal });
  }

  async remove(name: string, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('DELETE', profilePath(name), { signal });
  }
}

export class StoragePools {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  async list(signal?: AbortSignal): Promise<readonly StoragePool[]> {
    return listOf<StoragePool>(this.#transport, '/1.0/storage-pools', signal);
  }

  async get(name: string, signal?: AbortSignal): Promise<StoragePool> {
    return one<StoragePool>(this.#transport, poolPath(name), signal);
  }

  async resources(name: string, signal?: AbortSignal): Promise<StoragePoolResources> {
    return one<StoragePoolResources>(this.#transport, `${poolPath(name)}/resources`, signal);
  }
}

export class Networks {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  async list(signal?: AbortSignal): Promise<readonly Network[]> {
    return listOf<Network>(this.#transport, '/1.0/networks', signal);
  }

  async get(name: string, signal?: AbortSignal): Promise<Network> {
    return one<Network>(this.#transport, `/1.0/networks/${encodeURIComponent(name)}`, signal);
  }
}

function profilePath(name: string): string {
  return `/1.0/profiles/${encodeURIComponent(name)}`;
}

function poolPath(name: string): string {
  return `/1.0/storage-pools/${encodeURIComponent(name)}`;
}

async function one<T>(transport: Transport, path: string, signal: AbortSignal | undefined): Promise<T> {
  return (await transport.request('GET', path, { signal })).envelope.metadata as T;
}

async function listOf<T>(transport: Transport, path: string, signal: AbortSignal | undefined): Promise<readonly T[]> {
  const { envelope } = await transport.request('GET', path, { query: { recursion: 1 }, signal });
  return (envelope.metadata ?? []) as readonly T[];
}
