// The files of an instance in memory, as the fake engine serves them: links in the way are followed within the root.
export interface FakeFile {
  readonly kind: 'file' | 'directory' | 'symlink';
  readonly content: Buffer;
  readonly mode: string;
  readonly owner: string;
}

type Headers = Readonly<Record<string, string | readonly string[] | undefined>>;

const folder = (mode = '0755'): FakeFile => ({ kind: 'directory', content: Buffer.alloc(0), mode, owner: '0:0' });

export class FakeGuestFiles {
  readonly #files = new Map<string, FakeFile>([
    ['/', folder()],
    ['/etc', folder()],
    ['/root', folder('0700')],
  ]);

  get(path: string): FakeFile | undefined {
    return this.#files.get(path);
  }

  set(path: string, content: string, mode = '0644'): void {
    this.#files.set(path, { kind: 'file', content: Buffer.from(content), mode, owner: '0:0' });
  }

  /** Paths, with what of them is not usual. */
  list(): readonly string[] {
    return [...this.#files]
      .filter(([path]) => !['/', '/etc', '/root'].includes(path))
      .map(([path, { kind, mode, owner }]) => `${path} ${kind} ${mode} ${owner}`);
  }

  /** False when there is no parent. */
  put(path: string, headers: Headers, content: Buffer): boolean {
    const parent = path.slice(0, path.lastIndexOf('/')) || '/';
    if (this.#files.get(parent)?.kind !== 'directory') return false;
    const before = this.#files.get(path);
    const kind = headers['x-lxd-type'] === 'directory' ? 'directory' : 'file';
    const asked = {
      mode: String(headers['x-lxd-mode'] ?? '0644'),
      owner: `${String(headers['x-lxd-uid'] ?? 0)}:${String(headers['x-lxd-gid'] ?? 0)}`,
    };
    this.#files.set(path, { ...asked, ...before, kind, content });
    return true;
  }
}
