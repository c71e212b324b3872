// Looks a file up by its path, as the guest itself would see it.
import type { ExtFileSystem } from './ext-file-system.ts';
import type { Inode } from './inode.ts';

const MAX_LINKS_FOLLOWED = 40;

/** The file at an absolute path, links followed within this file system; undefined when there is none. */
export function findFile(fileSystem: ExtFileSystem, path: string): Inode | undefined {
  const above: Inode[] = [fileSystem.root];
  const rest = names(path);
  for (let followed = 0; rest.length > 0 && followed <= MAX_LINKS_FOLLOWED; ) {
    const name = rest.shift() ?? '';
    if (name === '..') {
      above.length = Math.max(1, above.length - 1);
      continue;
    }
    const inode = entry(fileSystem, above.at(-1), name);
    if (!inode) return undefined;
    if (inode.kind !== 'symlink') {
      above.push(inode);
      continue;
    }
    followed += 1;
    const target = fileSystem.linkTarget(inode);
    if (target.startsWith('/')) above.length = 1;
    rest.unshift(...names(target));
  }
  return rest.length === 0 ? above.at(-1) : undefined;
}

function names(path: string): string[] {
  return path.split('/').filter((name) => name !== '' && name !== '.');
}

function entry(fileSystem: ExtFileSystem, directory: Inode | undefined, name: string): Inode | undefined {
  if (directory?.kind !== 'directory') return undefined;
  const found = fileSystem.entries(directory).find((candidate) => candidate.name === name);
  return found && fileSystem.inode(found.inode);
}
