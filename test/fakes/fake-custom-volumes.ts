// Custom volumes of the engine in memory: names and configuration; those that instances use stay.
export interface FakeVolume {
  readonly name: string;
  readonly type: 'custom';
  config: Record<string, string>;
}

type Devices = Readonly<Record<string, Readonly<Record<string, string>>>>;

export class FakeCustomVolumes {
  readonly #volumes = new Map<string, FakeVolume>();
  readonly #users: () => Iterable<{ readonly name: string; readonly devices: Devices }>;

  constructor(users: () => Iterable<{ readonly name: string; readonly devices: Devices }>) {
    this.#users = users;
  }

  get names(): readonly string[] {
    return [...this.#volumes.keys()].toSorted();
  }

  get(name: string): FakeVolume | undefined {
    return this.#volumes.get(name);
  }

  view({ name, type, config }: FakeVolume): object {
    const users = [...this.#users()].filter(({ devices }) =>
      Object.values(devices).some((device) => device['pool'] !== undefined && device['source'] === name),
    );
    const base = { name, type, config, content_type: 'filesystem', description: '', location: 'none' };
    return { ...base, used_by: users.map((user) => `/1.0/instances/${user.name}`) };
  }

  views(): readonly object[] {
    return [...this.#volumes.values()].map((volume) => this.view(volume));
  }

  /** False when the name is taken. */
  add(name: string, config: Record<string, string>): boolean {
    if (this.#volumes.has(name)) return false;
    this.#volumes.set(name, { name, type: 'custom', config });
    return true;
  }

  isUsed(name: string): boolean {
    const volume = this.#volumes.get(name);
    return volume !== undefined && (this.view(volume) as { used_by: string[] }).used_by.length > 0;
  }

  remove(name: string): void {
    this.#volumes.delete(name);
  }
}
