// lighter file: files of instances, there and back.
import { type Command, InvalidArgumentError } from 'commander';
import { posix } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import { editText } from '../editing.ts';
import { text } from 'node:stream/consumers';
import { type Inside, type PullOptions, pull } from '../file-pull.ts';
import { makeDirectories, type PushOptions, push } from '../file-push.ts';

export function addFileCommands(program: Command, cli: Cli): void {
  const file = program.command('file').description('Manage files in instances');
  addPull(file, cli);
  addPush(file, cli);
  file
    .command('delete')
    .alias('rm')
    .description('Delete files and empty directories in instances')
    .argument('<instance/path...>')
    .addHelpText('after', '\nExample:\n  lighter file delete web/etc/motd')
    .action(async (names: readonly string[]) => {
      for (const name of names) {
        const { client, name: instance, path } = await inside(cli, name);
        await client.files.remove(instance, path, cli.signal);
      }
    });
  file
    .command('edit')
    .description('Edit files in instances')
    .argument('<instance/path>')
    .addHelpText('after', '\nExamples:\n  lighter file edit web/etc/hosts\n  lighter file edit web/etc/hosts < hosts')
    .action(async (name: string) => {
      const { client, name: instance, path } = await inside(cli, name);
      const found = await client.files.find(instance, path, cli.signal);
      if (found && found.kind !== 'file') throw new AppError('invalid', `Not a file: ${name}`);
      await editText(cli, {
        text: found ? await text(found.content) : '',
        extension: posix.extname(path).slice(1) || 'txt',
        apply: async (content) =>
          client.files.put(instance, path, { kind: 'file', content: Buffer.from(content) }, cli.signal),
      });
    });
  addMkdir(file, cli);
}

function addPull(file: Command, cli: Cli): void {
  file
    .command('pull')
    .description('Pull files from instances')
    .argument('<instance/path...>', 'and at the end the target: a directory, a file, or - for standard output')
    .option('-p, --create-dirs', 'Create any directories necessary')
    .option('-r, --recursive', 'Recursively transfer files')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter file pull web/etc/hosts .\n  lighter file pull web/etc/os-release -\n  lighter file pull -r web/etc backup',
    )
    .action(async (words: readonly string[], options: PullOptions) => {
      const target = words.at(-1) ?? '';
      if (words.length < 2) throw new AppError('invalid', 'A target is needed: a directory, a file, or -');
      const sources = await Promise.all(words.slice(0, -1).map(async (word) => inside(cli, word)));
      await pull(cli, { sources, target }, options);
    });
}

function addPush(file: Command, cli: Cli): void {
  file
    .command('push')
    .description('Push files into instances')
    .argument('<source path...>', 'and at the end INSTANCE/PATH; the source - is standard input')
    .option('-p, --create-dirs', 'Create any directories necessary')
    .option('-r, --recursive', 'Recursively transfer files')
    .option('--uid <id>', "Set the file's uid on push", number)
    .option('--gid <id>', "Set the file's gid on push", number)
    .option('--mode <mode>', "Set the file's perms on push", octal)
    .addHelpText(
      'after',
      '\nExamples:\n  lighter file push hosts web/etc/hosts\n  lighter file push -r -p site web/srv/\n  echo hello | lighter file push - web/etc/motd --mode 0644',
    )
    .action(async (words: readonly string[], options: PushOptions) => {
      if (words.length < 2) throw new AppError('invalid', 'A source and INSTANCE/PATH are needed');
      await push(cli, { sources: words.slice(0, -1), target: await inside(cli, words.at(-1) ?? '') }, options);
    });
}

interface MkdirOptions {
  readonly createDirs?: boolean;
  readonly uid?: number;
  readonly gid?: number;
  readonly mode?: number;
}

function addMkdir(file: Command, cli: Cli): void {
  file
    .command('mkdir')
    .description('Make directories in instances')
    .argument('<instance/path...>')
    .option('-p, --create-dirs', 'Create any directories necessary')
    .option('--uid <id>', 'Owner', number, 0)
    .option('--gid <id>', 'Group', number, 0)
    .option('--mode <mode>', 'Permissions', octal, 0o755)
    .addHelpText('after', '\nExample:\n  lighter file mkdir -p web/srv/www/site --uid 33 --gid 33')
    .action(async (names: readonly string[], { createDirs = false, ...status }: MkdirOptions) => {
      for (const name of names) {
        const place = await inside(cli, name);
        if (createDirs) await makeDirectories(cli, place, posix.dirname(place.path), status);
        await place.client.files.put(place.name, place.path, { kind: 'directory', ...status }, cli.signal);
      }
    });
}

async function inside(cli: Cli, text: string): Promise<Inside> {
  const target = await cli.at(text);
  const at = target.name.indexOf('/');
  if (at < 1) throw new AppError('invalid', `Expected INSTANCE/PATH, got "${text}"`);
  return { ...target, name: target.name.slice(0, at), path: posix.normalize(target.name.slice(at)) };
}

function number(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It must be a number.');
  return Number(text);
}

function octal(text: string): number {
  if (!/^0?[0-7]{1,4}$/.test(text)) throw new InvalidArgumentError('It must be octal, such as 0644.');
  return Number.parseInt(text, 8);
}
