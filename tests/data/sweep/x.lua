local kinds = {'http-req', 'http-res', 'tcp-req', 'tcp-res'}
core.register_action('act1', kinds, function() end, 0)
core.register_action('act2', kinds, function() end, 2)
core.register_service('svc1', 'http', function() end)
core.register_service('tsvc', 'tcp', function() end)
local filter = {id = 'Lua', flags = 0}
filter.__index = filter
function filter:new() return setmetatable({}, filter) end
core.register_filter('flt1', filter, function(class, arguments) return class end)
