-- The spend ledger in Redis: every call of SpendLedger (spend.py) is a call of this script, and atomic.
--
-- KEYS[1] is the ledger's state: whether it is open, and its epoch, a random name for its life since the last rebuild.
-- All other keys begin with that epoch, so a rebuilt ledger finds nothing of an earlier life; what that left expires.
-- They have one hash tag, because budgets, leases and reservations change together.
--
--   state   open, epoch, why open is not          need   how far partitions must be confirmed before it opens
--   w:      a window: budget, version, spent, reserved, left; what is leased is the rest of the budget
--   d:      a decision: twelve bytes of what became of it, {reserved, line item, windows, person, levels, end,
--           kind of event that is paid for, what it costs, last moment it does, windows of booked numbers, what is held of
--           one, kind that counts one, windows that only count what is spent, advertiser}, the decision. The bytes are
--             of the money  r(eserved) f(ree again) b(illed) k(nown: spent in totals) x(refused: the amount says why)
--             of a number   as of money, and -(none)
--             of the person o(ut) s(tate has it) -(neither)
--             a bit for every kind of event that was counted, and which record was the impression, in eight letters
--   v:      of which decision a conversion is, by advertiser and a hash of its id
--   p:      of a person: {what changes when something was folded, when this may be forgotten, what is out by level}
--   leases  by worker and line item: amount, end, windows        ends   when leases end        due   when decisions do
--   c:      counts of a key                                      off    last offset counted, by partition
--   dirty   windows and counts by the number of the call that changed them last                seq   that number
--   k:      calls of one client: fewer than it was told of means that the server forgot, and the ledger closes
--
-- Sums are changed by HINCRBY alone, in whole 64-bit numbers. Lua's own are exact to 2^53, which amounts of a batch
-- stay below; of `left` it has to know only whether it is less than an amount.
local STATE, op, now, life = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local a = cmsgpack.unpack(ARGV[6])  -- what the call is told; values lie beside it
local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack
local root, state = string.sub(STATE, 1, -6), redis.call('HMGET', STATE, 'open', 'epoch', 'why')
local open, epoch = state[1] == '1', state[2] or ''
local P = root .. epoch .. ':'
local n = 0
local function reply(kind, value) return pack({kind, epoch, n, value}) end
local function closed(why)
  call('HSET', STATE, 'open', '0', 'why', why)
  call('PEXPIRE', STATE, LIFE)
  open, state[3] = false, why
end
local function refused() return {reply('closed', state[3] or 'lost')} end
local function flat(hash)  -- HGETALL as a table
  local into = {}
  for i = 1, #hash, 2 do into[hash[i]] = hash[i + 1] end
  return into
end
local function renew(...)
  for _, name in ipairs({...}) do call('PEXPIRE', P .. name, LIFE) end
end
local function ttl_of(window) return string.find(window, '^[|#]') and LIFE or DAYS end
local function lacking(tallies)  -- how far confirming has to come before the ledger opens
  for _, t in ipairs(tallies) do
    if t[3] > tonumber(call('HGET', root .. 'need', t[1]) or '-1') then call('HSET', root .. 'need', t[1], t[3]) end
  end
  call('PEXPIRE', root .. 'need', LIFE)
end
local function chunks(command, key, list)
  for first = 1, #list, 1000 do call(command, key, unpack(list, first, math.min(first + 999, #list))) end
end
if op == 'closed' then
  return {reply('ok', open and '' or state[3] or 'lost')}
elseif op == 'rebuild' then
  if open then return {reply('open', '')} end
  epoch = a[1]
  P = root .. epoch .. ':'
  call('HSET', STATE, 'epoch', epoch)
  closed('rebuilding')
  local dirty = {}
  for _, w in ipairs(a[2]) do
    local key = P .. 'w:' .. w[1]
    call('HSET', key, 'budget', w[2], 'version', w[3], 'spent', w[4], 'left', w[2])
    call('HINCRBY', key, 'left', w[5])
    call('PEXPIRE', key, ttl_of(w[1]))
    dirty[#dirty + 1], dirty[#dirty + 2] = 1, 'w:' .. w[1]
  end
  for key, counts in pairs(a[3]) do
    for name, count in pairs(counts) do call('HSET', P .. 'c:' .. key, name, count) end
    renew('c:' .. key)
    dirty[#dirty + 1], dirty[#dirty + 2] = 1, 'c:' .. key
  end
  chunks('ZADD', P .. 'dirty', dirty)
  call('SET', P .. 'seq', 1)
  for source, offset in pairs(a[4]) do call('HSET', P .. 'off', source, offset) end
  renew('dirty', 'seq', 'off')
  return {reply('ok', '')}
elseif op == 'confirm' and epoch == '' then
  lacking(a[2])
end
if epoch == '' then return refused() end
if op == 'totals' or op == 'covered' or op == 'known' then
  if op == 'totals' and not open then return refused() end
else
  n = call('INCR', P .. 'k:' .. life)
  renew('k:' .. life)
  if ARGV[4] == epoch and n <= tonumber(ARGV[5]) then closed('rewound') end
end
local FIELDS = {'left', 'spent', 'reserved'}
local windows, people, leases, counts, due, gone, ends, ended = {}, {}, {}, {}, {}, {}, {}, {}
local function window(name)
  local w = windows[name]
  if not w then
    w = {left = 0, spent = 0, reserved = 0, leased = 0}
    windows[name] = w
  end
  return w
end
local function left_of(name)  -- what can be leased; nil of a window without a budget
  local w = window(name)
  if not w.base then
    local held = call('HMGET', P .. 'w:' .. name, 'left', 'budget')
    w.base, w.known = tonumber(held[1] or '0'), held[2]
  end
  return w.known and w.base + w.left
end
local function move(names, from, to, amount)
  for _, name in ipairs(names) do
    local w = window(name)
    w[from], w[to] = w[from] - amount, w[to] + amount
  end
end
local function least(names, amount)  -- what every window has left, at most `amount`
  for _, name in ipairs(names) do amount = math.min(amount, left_of(name) or 0) end
  return amount
end
local function alike(some, others)
  for i = 1, math.max(#some, #others) do if some[i] ~= others[i] then return false end end
  return true
end
local function lease_of(worker, key)
  local field = worker .. '\n' .. key
  if leases[field] == nil then
    local held = call('HGET', P .. 'leases', field)
    local l = held and unpacked(held) or {0, 0, {}}
    leases[field] = {left = l[1], ends = l[2], names = l[3], taken = 0}
  end
  return leases[field]
end
local function give_back(l)
  move(l.names, 'leased', 'left', l.left)
  l.left, l.ends, l.changed, l.over = 0, 0, true, true
end
local function end_leases(most)
  local fields = call('ZRANGEBYSCORE', P .. 'ends', '-inf', now, 'LIMIT', 0, most)
  for _, field in ipairs(fields) do
    local worker, key = string.match(field, '^(.-)\n(.*)$')
    give_back(lease_of(worker, key))
  end
  return #fields
end
local function count(key, name, number)
  local c = counts[key] or {}
  c[name], counts[key] = (c[name] or 0) + number, c
end
local function person(name, keep_ms)
  local p = people[name]
  if not p then
    local held = call('GET', P .. 'p:' .. name)
    p = held and unpacked(held) or {'', 0, {}}
    people[name] = p
  end
  p[2] = math.max(p[2], now + keep_ms)
  return p
end
local function put_out(name, levels, step, keep_ms)
  if name == '' then return end
  local p = person(name, keep_ms)
  for _, level in ipairs(levels) do
    local many = (p[3][level] or 0) + step
    p[3][level] = many > 0 and many or nil
  end
  p.changed = true
end
local HEAD, IMPRESSION, CONVERSION, ONE = 12, 1, 3, 1000000
-- {reserved, key, names, person, levels, kept, billed_by, price, last, booked, holds, booked_by, counted, advertiser}
local function decision(id)
  local held = call('GET', P .. 'd:' .. id)
  if not held then return end
  local at, d = cmsgpack.unpack_one(held, HEAD)
  d.state, d.number, d.out = string.sub(held, 1, 1), string.sub(held, 2, 2), string.sub(held, 3, 3)
  d.seen, d.stamp = string.byte(held, 4), string.sub(held, 5, HEAD)
  d.value = at > 0 and string.sub(held, at + 1) or ''
  return d
end
local function keep(id, head, value, kept)
  call('SET', P .. 'd:' .. id, head .. '\0' .. '00000000' .. value, 'PX', math.max(1, kept - now) + SLACK)
end
local function becomes(id, d)
  call('SETRANGE', P .. 'd:' .. id, 0, d.state .. d.number .. d.out .. string.char(d.seen) .. d.stamp)
end
local function has(d, kind) return bit.band(d.seen, 2 ^ (kind - 1)) ~= 0 end
local function waits(d)  -- for a sweep: of its money, or of an impression that does not come
  return d.state == 'r' or d.number == 'r' or (d.out == 'o' and not has(d, IMPRESSION))
end
local function unfolded(d) return d.out == 'o' and has(d, IMPRESSION) end  -- for a sweep at its end: no state has it
local function settle(state, names, held, price, old)  -- what is old was spent in the totals; the state then
  local freed = state == 'r' and held or 0
  if old then price = 0 end
  for _, name in ipairs(names) do
    local w = window(name)
    w.reserved, w.left, w.spent = w.reserved - freed, w.left + freed - price, w.spent + price
  end
  return old and 'k' or 'b'
end
local function bill(d, old)  -- the event that is paid for came first: what became of it
  if not old and now > d[9] then
    count(d[2], 'billed_too_late', 1)
    return 3
  end
  local free = d.state == 'f'
  settle('', d[13] or {}, 0, d[8], old)
  d.state = settle(d.state, d[3], d[1], d[8], old)
  if old then return 5 end
  count(d[2], free and 'billed_late' or 'billed', 1)
  return free and 2 or 0
end
local function expose(d, old, stamp)  -- its first impression: out until it is folded, if it is not in the state
  if old and d.out == 'o' then put_out(d[4], d[5], -1, 0)
  elseif not old and d.out == '-' then put_out(d[4], d[5], 1, d[6] - now + SLACK) end
  d.out, d.stamp = old and 's' or 'o', stamp
end
local EXPOSES = 16
local function elsewhere(id, d, conversion)  -- was it another decision's? If not it is this one's from now on
  local key = P .. 'v:' .. (d[14] or '') .. '\n' .. conversion
  local whose = call('GET', key)
  if not whose then call('SET', key, id, 'PX', CONVERSIONS) end
  return whose and whose ~= id
end
local function happened(id, d, kind, stamp, conversion, old)
  if has(d, kind) then return kind == IMPRESSION and stamp == d.stamp and 1 + EXPOSES or 1 end
  if kind == CONVERSION and conversion ~= '' and elsewhere(id, d, conversion) then return 7 end
  local waited, code = waits(d), 6
  d.seen = d.seen + 2 ^ (kind - 1)
  if not old then count(d[2], KINDS[kind], 1) end
  if kind == d[7] then code = bill(d, old) end
  if kind == d[12] and (old or now <= d[9]) then d.number = settle(d.number, d[10], d[11], ONE, old) end
  if kind == IMPRESSION then
    expose(d, old, stamp)
    code = code + EXPOSES
  end
  if not waits(d) and (waited or kind == IMPRESSION) then
    if unfolded(d) then due[#due + 1], due[#due + 2] = d[6], id else gone[#gone + 1] = id end
  end
  becomes(id, d)
  return code
end
local function counted(tallies, ordered)  -- nil, or what the call ends with
  for _, t in ipairs(tallies) do
    t.stored = tonumber(call('HGET', P .. 'off', t[1]) or false)
    if t.stored and t.stored < t[2] and ordered then
      if open then closed('rewound') end
      lacking(tallies)
      return refused()
    end
    local elsewhere = t[5] and t.stored ~= t[2] and t.stored ~= t[3]
    if t.stored and (elsewhere or t[2] < t.stored and t.stored < t[3]) then
      return {reply('counted', {t[1], t.stored})}
    end
  end
  for _, t in ipairs(tallies) do
    if not t.stored or t.stored < t[3] then
      call('HSET', P .. 'off', t[1], t[3])
      for _, c in ipairs(t[4]) do count(c[1], c[2], c[3]) end
    end
  end
  if #tallies > 0 then renew('off') end
end
local function flush()
  local changed, held = {}, {}
  for _, l in pairs(leases) do
    if l.taken > 0 then move(l.names, 'leased', 'reserved', l.taken) end
  end
  for name, w in pairs(windows) do
    local key, any = P .. 'w:' .. name, false
    for _, field in ipairs(FIELDS) do
      if w[field] ~= 0 then any = call('HINCRBY', key, field, w[field]) end
    end
    if w.reserved < 0 and any < 0 then  -- it was forgotten while something was out
      call('DEL', key)
      any = false
    end
    if any and w.left ~= 0 and (w.spent == 0 or any == w.spent) then  -- all others were told of, or leased, before
      call('PEXPIRE', key, ttl_of(name))
    end
    if any then changed[#changed + 1] = 'w:' .. name end
  end
  for key, names in pairs(counts) do
    local new = false
    for name, number in pairs(names) do
      new = call('HINCRBY', P .. 'c:' .. key, name, number) == number or new
    end
    if new then renew('c:' .. key) end  -- and whenever it leases
    changed[#changed + 1] = 'c:' .. key
  end
  for name, p in pairs(people) do
    if p.changed then
      call('SET', P .. 'p:' .. name, pack({p[1], p[2], p[3]}), 'PX', math.max(1, p[2] - now))
    end
  end
  for field, l in pairs(leases) do
    if l.changed and l.over then
      call('HDEL', P .. 'leases', field)
      ended[#ended + 1] = field
    elseif l.changed then
      held[#held + 1], held[#held + 2] = field, pack({l.left, l.ends, l.names})
      if l.renewed then ends[#ends + 1], ends[#ends + 2] = l.ends, field end
    end
  end
  chunks('HSET', P .. 'leases', held)
  chunks('ZADD', P .. 'ends', ends)
  chunks('ZREM', P .. 'ends', ended)
  chunks('ZADD', P .. 'due', due)
  chunks('ZREM', P .. 'due', gone)
  if #ends > 0 then renew('ends', 'leases') end
  if #due > 0 then renew('due') end
  if #changed > 0 then
    local seq, marked = call('INCR', P .. 'seq'), {}
    for i, name in ipairs(changed) do marked[2 * i - 1], marked[2 * i] = seq, name end
    chunks('ZADD', P .. 'dirty', marked)
    renew('dirty', 'seq')
  end
  call('PEXPIRE', STATE, LIFE)
end
if op == 'budgets' then
  for _, b in ipairs(a) do
    local key = P .. 'w:' .. b[1]
    local held = call('HMGET', key, 'version', 'budget')
    if not held[1] or tonumber(held[1]) < b[3] then
      call('HINCRBY', key, 'left', b[2])
      if held[2] and held[2] ~= '0' then call('HINCRBY', key, 'left', '-' .. held[2]) end
      call('HSET', key, 'budget', b[2], 'version', b[3])
      local seq = call('INCR', P .. 'seq')
      call('ZADD', P .. 'dirty', seq, 'w:' .. b[1])
    end
    call('PEXPIRE', key, ttl_of(b[1]))
  end
  renew('dirty', 'seq')
  call('PEXPIRE', STATE, LIFE)
  return {reply('ok', '')}
elseif op == 'lease' then
  if not open then return refused() end
  local got = {}
  end_leases(1000)
  for i, want in ipairs(a[3]) do
    local l = lease_of(a[1], want[1])
    local nothing = want[3] == 0
    if l.ends <= now or not alike(l.names, want[2]) then give_back(l) end
    for _, name in ipairs(want[2]) do if not left_of(name) then want[3] = 0 end end
    renew('c:' .. want[1])
    local more = math.max(-l.left, least(want[2], want[3] - l.left))
    move(want[2], 'left', 'leased', more)
    l.left, l.ends, l.names = l.left + more, a[2], want[2]
    l.changed, l.renewed, l.over = true, true, nothing
    got[i] = l.left
  end
  flush()
  return {reply('ok', got)}
elseif op == 'sweep' then
  local many = end_leases(a[1])
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, a[1])) do
    local d = decision(id)
    if not d then closed('rewound')
    elseif waits(d) then
      if d.state == 'r' then
        move(d[3], 'reserved', 'left', d[1])
        count(d[2], 'released', 1)
        d.state = 'f'
      end
      if d.number == 'r' then
        move(d[10], 'reserved', 'left', d[11])
        d.number = 'f'
      end
      if waits(d) then
        put_out(d[4], d[5], -1, 0)
        d.out = '-'
      end
      becomes(id, d)
    elseif unfolded(d) and now >= d[6] then  -- whoever was to say that it is folded was killed
      put_out(d[4], d[5], -1, 0)
      d.out = '-'
      becomes(id, d)
    end
    if d and unfolded(d) then due[#due + 1], due[#due + 2] = d[6], id else gone[#gone + 1] = id end
    many = many + 1
  end
  flush()
  return {reply('ok', many)}
end
if op == 'reserve' then
  local worker, decided, rows, sets, codes, values = a[1], a[2], a[3], a[5], {}, {''}
  local may = open or decided
  if open then
    local failed = counted(a[4], false)
    if failed then return failed end
  end
  for i, r in ipairs(rows) do
    local d, code = decision(r[1]), 0
    if d then
      code, values[i + 1] = d.state == 'x' and d[1] or 1, d.value
    elseif not may then code = 6
    else
      local l, p = lease_of(worker, r[2]), r[7] ~= '' and person(r[7], r[6] - now + SLACK)
      if l.set ~= r[3] and alike(l.names, sets[r[3]]) then l.set = r[3] end
      local same, levels = l.set == r[3], r[9]
      for k, level in ipairs(levels) do
        if (p and p[3][level] or 0) >= r[10][k] then code = 5 end
      end
      if #levels > 0 and (p and p[1] or '') ~= r[8] then code = 5 end
      if code == 0 and (l.ends <= now or not same) then code = 3 end
      if code == 0 and l.left < r[4] then code = least(sets[r[3]], r[4] - l.left) < r[4] - l.left and 2 or 4 end
      local booked, holds = r[11] > 0 and sets[r[11]] or {}, r[12]
      if code == 0 and least(booked, holds) < holds then code = 2 end
      if decided and not (l.ends > now and same and l.left >= r[4]) then
        code = 0
        move(sets[r[3]], 'left', 'reserved', r[4])
      elseif decided or code == 0 then
        code, l.left, l.taken, l.changed = 0, l.left - r[4], l.taken + r[4], true
      end
      if code == 0 then
        move(booked, 'left', 'reserved', holds)
        keep(r[1], r[11] > 0 and 'rro' or 'r-o', ARGV[6 + i], r[6])
        due[#due + 1], due[#due + 2] = r[5], r[1]
        put_out(r[7], levels, 1, r[6] - now + SLACK)
      else
        keep(r[1], 'x--', pack({code, r[2], {}, '', {}, r[6]}), r[6])
      end
      if open then count(r[2], code == 0 and 'reserved' or 'refused', 1) end
    end
    codes[i], values[i + 1] = code, values[i + 1] or ''
  end
  flush()
  values[1] = reply('ok', codes)
  return values
elseif op == 'confirm' then
  local failed, codes, values = counted(a[2], true), {}, {''}
  if failed then return failed end
  for i, r in ipairs(a[1]) do
    local d, t = decision(r[1]), a[2][r[2]]
    local old = t and t.stored and r[3] <= t.stored
    if d and d.state ~= 'x' then
      codes[i], values[i + 1] = happened(r[1], d, r[4], r[5], r[6] or '', old), d.value
    else
      codes[i], values[i + 1] = 4, ''
      if not old then count(d and d[2] or '', 'invalid', 1) end
    end
  end
  flush()
  values[1] = reply('ok', codes)
  return values
elseif op == 'folded' then
  for _, id in ipairs(a) do
    local d = decision(id)
    if d and d.out == 'o' and has(d, IMPRESSION) then
      d.out = 's'
      becomes(id, d)
      if not waits(d) then gone[#gone + 1] = id end
      put_out(d[4], d[5], -1, SLACK)
      if d[4] ~= '' and #d[5] > 0 then person(d[4], SLACK)[1] = epoch .. n .. '.' .. life end
    end
  end
  flush()
  return {reply('ok', '')}
end
if op == 'known' then  -- what is out for people, and decisions
  local found, values = open and {}, {''}
  for i, name in ipairs(found and a[1] or {}) do
    local held = call('GET', P .. 'p:' .. name)
    found[i] = held and unpacked(held) or {'', 0, {}}
  end
  for i, id in ipairs(a[2]) do
    local d = decision(id)
    values[i + 1] = d and d.value or ''
  end
  values[1] = reply('ok', {found, state[3]})
  return values
elseif op == 'covered' then
  local found = {}
  for i, source in ipairs(a) do found[i] = tonumber(call('HGET', P .. 'off', source) or false) or false end
  return {reply('ok', found)}
elseif op == 'totals' then
  local found, counts_found, lost, seq = {}, {}, {}, tonumber(call('GET', P .. 'seq') or '0')
  if a[1] ~= epoch then a[2] = 0 end
  if seq < a[2] then
    closed('rewound')
    return refused()
  end
  for _, name in ipairs(call('ZRANGEBYSCORE', P .. 'dirty', '(' .. a[2], '+inf')) do
    local kind, rest = string.sub(name, 1, 1), string.sub(name, 3)
    if kind == 'c' then counts_found[#counts_found + 1] = {rest, call('HGETALL', P .. name)}
    else
      local w = call('HMGET', P .. name, 'left', 'budget', 'version', 'spent', 'reserved')
      if w[1] then
        for i = 2, 5 do w[i] = w[i] or '0' end
        found[#found + 1] = {rest, w}
      else lost[#lost + 1] = name end
    end
  end
  chunks('ZREM', P .. 'dirty', lost)
  return {reply('ok', {seq, found, counts_found, call('HGETALL', P .. 'off')})}
elseif op == 'reopen' then
  local missing = {}
  for source, offset in pairs(flat(call('HGETALL', root .. 'need'))) do
    if tonumber(call('HGET', P .. 'off', source) or '-1') < tonumber(offset) then
      missing[#missing + 1], missing[#missing + 2] = source, offset
    end
  end
  if #missing == 0 then
    call('DEL', root .. 'need')
    call('HSET', STATE, 'open', '1', 'why', '')
    call('PEXPIRE', STATE, LIFE)
  end
  return {reply('ok', missing)}
end
