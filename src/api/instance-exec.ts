// POST /1.0/instances/NAME/exec
import type { Static } from 'typebox';
import type { ExecRequest } from '#src/engine/instances/exec.ts';
import type { ApiApp } from './app.ts';
import { ApiError, operation } from './envelope.ts';
import { type InstanceDeps, instanceOf } from './instance-of.ts';
import { partial, pathParams, ProjectQuery, StringMap } from './schema.ts';
import { Type } from './type.ts';

const MAX_ID = 2 ** 32 - 2;
const MAX_SIZE = 0xffff;

const ExecBody = partial({
  command: Type.Array(Type.String()),
  environment: StringMap,
  interactive: Type.Boolean(),
  width: Type.Integer({ minimum: 0, maximum: MAX_SIZE }),
  height: Type.Integer({ minimum: 0, maximum: MAX_SIZE }),
  'wait-for-websocket': Type.Boolean(),
  'record-output': Type.Boolean(),
  user: Type.Integer({ minimum: 0, maximum: MAX_ID }),
  group: Type.Integer({ minimum: 0, maximum: MAX_ID }),
  cwd: Type.String(),
});

export const EXEC_EXTENSIONS = [
  'container_exec_recording',
  'container_exec_signal_handling',
  'container_exec_user_group_cwd',
] as const;

export function registerExecRoutes(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  app.post(
    `/1.0/${prefix}/:name/exec`,
    {
      schema: {
        summary: 'Run a command in an instance',
        params: pathParams('name'),
        body: ExecBody,
        querystring: ProjectQuery,
      },
      config: { async: true },
    },
    async (request, reply) => {
      const info = instanceOf(request, deps);
      return operation(reply, deps.operations, await deps.instances.exec.start(info, execRequest(request.body)));
    },
  );
}

const DEFAULTS = {
  command: [] as string[],
  environment: {} as Record<string, string>,
  interactive: false,
  width: 0,
  height: 0,
  'wait-for-websocket': false,
  'record-output': false,
  user: 0,
  group: 0,
  cwd: '',
};

function execRequest(given: Static<typeof ExecBody>): ExecRequest {
  const body = { ...DEFAULTS, ...given };
  const { width, height } = body;
  return {
    command: checkedCommand(body),
    environment: body.environment,
    interactive: body.interactive,
    ...(width > 0 && height > 0 && { size: { width, height } }),
    waitForWebsocket: body['wait-for-websocket'],
    recordOutput: body['record-output'],
    uid: body.user,
    gid: body.group,
    cwd: body.cwd,
  };
}

function checkedCommand({ command, environment, cwd }: typeof DEFAULTS): ExecRequest['command'] {
  const [program = '', ...args] = command;
  if (program === '') throw new ApiError(400, 'Missing command');
  const texts = [program, ...args, cwd, ...Object.entries(environment).flat()];
  if (texts.some((text) => text.includes('\0'))) throw new ApiError(400, 'Invalid command: it contains a NUL byte');
  if (Object.keys(environment).some((key) => key === '' || key.includes('='))) {
    throw new ApiError(400, 'Invalid environment variable name');
  }
  return [program, ...args];
}
